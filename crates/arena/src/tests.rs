use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The flags of the mapping that holds `address`, from the kernel (`VmFlags` of smaps).
fn flags_at(address: usize) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split(' ').next().unwrap();
        if let Some((start, end)) = range.split_once('-') {
            let bound = |text| usize::from_str_radix(text, 16);
            if let (Ok(start), Ok(end)) = (bound(start), bound(end)) {
                inside = (start..end).contains(&address);
            }
        } else if inside && line.starts_with("VmFlags:") {
            return line.split_whitespace().skip(1).map(str::to_owned).collect();
        }
    }
    panic!("nothing is mapped there");
}

fn address(slot: &Slot) -> usize {
    slot.bytes().as_ptr().addr()
}

#[test]
fn the_kernel_knows_what_the_pages_are() {
    let slot = Slot::zeroed();
    let flags = flags_at(address(&slot));
    let has = |flag: &str| flags.iter().any(|known| known == flag);
    assert!(has("dd"), "left out of core dumps: {flags:?}");
    assert!(has("dc"), "left out of forks: {flags:?}");
    assert_eq!(
        has("lo"),
        status().unlocked_bytes == 0,
        "locked unless refused: {flags:?}"
    );
    assert!(has("rd") && has("wr") && !has("ex"), "{flags:?}");
}

#[test]
fn the_neighbouring_pages_are_forbidden() {
    let pages = pages::Pages::map(1).unwrap();
    let base = pages.base.addr().get();
    for outside in [base - 1, base + pages.bytes] {
        let flags = flags_at(outside);
        assert!(!flags.iter().any(|flag| flag == "rd" || flag == "wr"), "{flags:?}");
    }
}

#[test]
fn a_slot_is_zeroed_when_it_is_given_back() {
    let mut slots = Slots::new();
    let mut place = slots.take();
    let used = slots.status();
    assert_eq!(used.slots_used, 1);
    place.bytes_mut().fill(7);
    // What `Slot` does on drop.
    place.bytes_mut().zeroize();
    slots.give_back(&mut place);
    assert_eq!(slots.status().slots_used, 0);
    assert_eq!(slots.take().bytes(), &[0; SLOT_BYTES]);
}

#[test]
fn it_grows_and_counts() {
    let mut slots = Slots::new();
    assert_eq!(slots.status(), Status::default());
    let mut places = vec![slots.take()];
    let first = slots.status();
    let bytes = first.locked_bytes + first.unlocked_bytes;
    assert!(bytes > 0 && bytes.is_multiple_of(rustix::param::page_size()));
    places.extend((1..bytes / SLOT_BYTES).map(|_| slots.take()));
    assert_eq!(
        slots.status().locked_bytes + slots.status().unlocked_bytes,
        bytes,
        "all of it is used"
    );
    places.push(slots.take());
    assert_eq!(slots.status().locked_bytes + slots.status().unlocked_bytes, 2 * bytes);
    assert_eq!(slots.status().slots_used, places.len());
}

proptest! {
    /// Slots against a plain map: what is written to one is read from it, whatever happens to the others.
    #[test]
    fn slots_are_apart(steps in prop::collection::vec((any::<bool>(), 0_usize..40, any::<[u8; SLOT_BYTES]>()), 1..300)) {
        let mut slots: BTreeMap<usize, Slot> = BTreeMap::new();
        let mut twin: BTreeMap<usize, [u8; SLOT_BYTES]> = BTreeMap::new();
        for (write, name, bytes) in steps {
            if write {
                let slot = slots.entry(name).or_insert_with(Slot::zeroed);
                if !twin.contains_key(&name) {
                    prop_assert_eq!(slot.bytes(), &[0; SLOT_BYTES]);
                }
                *slot.bytes_mut() = bytes;
                twin.insert(name, bytes);
            } else {
                slots.remove(&name);
                twin.remove(&name);
            }
            for (name, bytes) in &twin {
                prop_assert_eq!(slots[name].bytes(), bytes);
            }
        }
    }
}

#[test]
fn threads_share_the_arena() {
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for round in 0..500 {
                    let mut slots: Vec<Slot> = (0..20).map(|_| Slot::zeroed()).collect();
                    for slot in &mut slots {
                        assert_eq!(slot.bytes(), &[0; SLOT_BYTES]);
                        slot.bytes_mut().fill(thread + 1);
                    }
                    for slot in &slots {
                        assert_eq!(slot.bytes(), &[thread + 1; SLOT_BYTES], "round {round}");
                    }
                }
            });
        }
    });
}

/// Writes a pattern far down the stack and gives the address where it stood.
#[inline(never)]
fn dirty() -> usize {
    let mut room = [0x5A_u8; 8 << 10];
    std::hint::black_box(&mut room).as_ptr().addr()
}

/// Bytes of the process's own memory, by way of the kernel: what lies below the stack pointer cannot be looked at otherwise.
fn memory(address: usize, bytes: usize) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let mut file = std::fs::File::open("/proc/self/mem").unwrap();
    file.seek(std::io::SeekFrom::Start(address as u64)).unwrap();
    let mut data = vec![0; bytes];
    file.read_exact(&mut data).unwrap();
    data
}

#[test]
fn work_leaves_no_trace_on_the_stack() {
    let dirty_bytes = |address| memory(address, 8 << 10).iter().filter(|byte| **byte == 0x5A).count();
    let left = stack::on_its_own_stack(dirty);
    assert!(dirty_bytes(left) > 1_000, "calls do leave something");
    let left = leaving_no_trace::<STACK_BYTES, _>(dirty);
    assert!(dirty_bytes(left) < 100, "{} bytes are left", dirty_bytes(left));
}
