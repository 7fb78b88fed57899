//! Catalog, zones, write path, flush, load, recovery, search
