//! Distances, flat and graph vector indexes over slices and buffers
