
/// A null cipher, for measuring what sealing costs: the same frames, nonces and tags in the same places, but nothing is
/// encrypted or authenticated. It is only ever put into a throw-away copy of the sources.
pub(crate) struct AeadKey;

#[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the face of the real one")]
impl AeadKey {
    pub(crate) fn new(_key: &[u8; PlainKey::BYTES]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self)
    }

    pub(crate) fn for_sealing(_key: &PlainKey) -> Result<Self, SealError> {
        Ok(Self)
    }

    pub(crate) fn for_opening(_key: &PlainKey) -> Result<Self, OpenError> {
        Ok(Self)
    }

    pub(crate) fn seal_in_place(&self, _aad: &[u8], sealed: &mut [u8]) -> Result<(), SealError> {
        let (nonce, rest) = sealed.split_at_mut_checked(NONCE_BYTES).ok_or(SealError::Module)?;
        let plain_bytes = rest.len().checked_sub(TAG_BYTES).ok_or(SealError::Module)?;
        nonce.fill(0);
        rest[plain_bytes..].fill(0);
        Ok(())
    }

    pub(crate) fn open_in_place(&self, _nonce: &[u8; NONCE_BYTES], _aad: &[u8], in_out: &mut [u8]) -> Result<(), OpenError> {
        if in_out.len() < TAG_BYTES {
            return Err(OpenError::Refused);
        }
        Ok(())
    }

    pub(crate) fn open(&self, _aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let body = sealed.get(NONCE_BYTES..).ok_or(OpenError::Refused)?;
        let plain_bytes = body.len().checked_sub(TAG_BYTES).ok_or(OpenError::Refused)?;
        Ok(Zeroizing::new(body[..plain_bytes].to_vec()))
    }
}
