//! Fault store and scripted KMS for tests.
