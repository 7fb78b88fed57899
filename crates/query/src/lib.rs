//! Filter expressions: parse, bind, evaluate to bitmaps; top-k merge
