//! The program's own pages: what only a start, a build or a load has run need not stay in memory.

use std::{
    ffi::{c_int, c_void},
    ptr::null_mut,
};

use rustix::mm::{Advice, madvise};

/// Lets go of the pages of code and constants. They are the file's own bytes, so nothing is lost: what is needed comes back
/// from the system's file cache, a few pages at a time.
pub(crate) fn give_back() {
    #[expect(unsafe_code, reason = "a call of the C library with a function to call back")]
    // SAFETY: the function below has the signature that is asked for, and uses no data of ours.
    unsafe {
        libc::dl_iterate_phdr(Some(of_first_object), null_mut());
    }
}

/// The program itself comes first; the libraries after it are small.
#[expect(unsafe_code, reason = "the C library hands out raw pointers to what it has loaded")]
unsafe extern "C" fn of_first_object(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: the C library gives a valid description for as long as this call lasts, and as many headers as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        (
            info.dlpi_addr,
            std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)),
        )
    };
    for header in headers {
        // What may be written to has been changed since it was loaded.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let (Ok(start), Ok(bytes)) = (usize::try_from(base + header.p_vaddr), usize::try_from(header.p_filesz)) else {
            continue;
        };
        let page_bytes = rustix::param::page_size();
        let first = start.next_multiple_of(page_bytes);
        let whole = (start + bytes).saturating_sub(first) / page_bytes * page_bytes;
        if whole == 0 {
            continue;
        }
        // SAFETY: whole pages of a private mapping of the program's file that is never written to: what is read there after
        // the advice is what was read before.
        let advised = unsafe {
            madvise(
                std::ptr::with_exposed_provenance_mut(first),
                whole,
                Advice::LinuxDontNeed,
            )
        };
        // Where the system refuses, the pages stay.
        let _ = advised;
    }
    1
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_goes_on_and_constants_stay_what_they_are() {
        static WORDS: [&str; 3] = ["some", "constant", "words"];
        let before = WORDS.concat();
        for _ in 0..3 {
            super::give_back();
            assert_eq!(WORDS.concat(), before);
        }
    }
}
