//! Key services: AWS KMS client, platform key file, and the local key server
