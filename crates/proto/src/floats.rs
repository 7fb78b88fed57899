//! `FloatArray`, the message that carries vectors. The generated one would read it value by value into a buffer that grows,
//! and whatever grows is copied and overwritten again and again; this one reads all values into a buffer of their size.

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, float, skip_field},
};

/// 32-bit floating point values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatArray {
    /// The values.
    pub data: Vec<f32>,
}

/// Number of the field, its only one.
const DATA: u32 = 1;

impl Message for FloatArray {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        float::encode_packed(DATA, &self.data, buffer);
    }
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != DATA {
            return skip_field(wire_type, tag, buffer, context);
        }
        if wire_type == WireType::LengthDelimited
            && let Some((prefix_bytes, values)) = packed(buffer.chunk())
        {
            self.data.reserve_exact(values.len());
            self.data.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            let bytes = prefix_bytes + size_of_val(values);
            buffer.advance(bytes);
            return Ok(());
        }
        // Values one by one, in several pieces, or wrong.
        float::merge_repeated(wire_type, &mut self.data, buffer, context)
    }
    fn encoded_len(&self) -> usize {
        float::encoded_len_packed(DATA, &self.data)
    }
    fn clear(&mut self) {
        self.data.clear();
    }
}

/// The values that stand in `chunk` after their length, and the bytes of that; `None` if they are not all there.
fn packed(chunk: &[u8]) -> Option<(usize, &[[u8; 4]])> {
    let (mut rest, before) = (chunk, chunk.len());
    let length = prost::encoding::decode_varint(&mut rest).ok()?;
    let bytes = rest.get(..usize::try_from(length).ok()?)?;
    let (values, []) = bytes.as_chunks::<4>() else {
        return None;
    };
    Some((before - rest.len(), values))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The length of the message's only field, then `values`.
    fn encoded(values: &[f32]) -> Vec<u8> {
        FloatArray { data: values.to_vec() }.encode_to_vec()
    }

    #[test]
    fn values_come_in_one_piece_in_two_and_one_by_one() {
        let values: Vec<f32> = (0..100u8).map(|value| f32::from(value) / 7.0).collect();
        let whole = encoded(&values);
        assert_eq!(whole.len(), 3 + 400);
        assert_eq!(FloatArray::decode(&whole[..]).unwrap().data, values);
        for cut in 0..whole.len() {
            let pieces = Bytes::copy_from_slice(&whole[..cut]).chain(Bytes::copy_from_slice(&whole[cut..]));
            assert_eq!(FloatArray::decode(pieces).unwrap().data, values, "cut at {cut}");
            assert!(cut == 0 || FloatArray::decode(&whole[..cut]).is_err(), "ends at {cut}");
        }
        // Field 1 as a 32-bit value, then packed again, then a field that is not known.
        let mut mixed = vec![0x0d, 0, 0, 0x80, 0x3f];
        mixed.extend(encoded(&[2.0, 3.0]));
        mixed.extend([0x10, 7]);
        assert_eq!(FloatArray::decode(&mixed[..]).unwrap().data, [1.0, 2.0, 3.0]);
        assert!(FloatArray::decode(&[0x0a, 3, 0, 0, 0][..]).is_err(), "no whole value");
        assert!(FloatArray::decode(&[0x08, 3][..]).is_err(), "an integer");
        assert!(FloatArray::decode(&[][..]).unwrap().data.is_empty());
    }
}
