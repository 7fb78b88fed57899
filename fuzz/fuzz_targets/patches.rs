//! What a fuzzer sends, as the bytes of a file: as they are, or as changes of a sound file. Sound files of any depth are
//! hard to find by chance.

/// The bytes after the first, which says how they are meant: even as they are; odd as changes of `sound`, each a place of
/// two bytes and the byte that is to be there.
pub(crate) fn patched(data: &[u8], sound: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = data.split_first() else { return Vec::new() };
    if how % 2 == 0 {
        return rest.to_vec();
    }
    let mut bytes = sound.to_vec();
    for [low, high, byte] in rest.as_chunks().0 {
        let place = usize::from(u16::from_le_bytes([*low, *high]));
        // Most of what is worth changing is at the start.
        let place = if how % 4 == 1 { place } else { place % 64 };
        if let Some(there) = bytes.get_mut(place) {
            *there = *byte;
        }
    }
    bytes
}
