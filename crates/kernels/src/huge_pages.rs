//! Large pages behind large buffers: fewer addresses to translate, and hardware that reads ahead does not stop at
//! every 4 KB (Linux, Documentation/admin-guide/mm/transhuge.rst).

/// Asks for huge pages behind memory that has not been touched yet. Where there are none, nothing changes.
pub fn advise_huge_pages<T>(buffer: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let (start, len) = (buffer.as_mut_ptr().cast::<u8>(), size_of_val(buffer));
        let offset = start.align_offset(PAGE);
        let bytes = len.saturating_sub(offset) / PAGE * PAGE;
        if bytes > 0 {
            // SAFETY: whole pages inside the buffer; the advice changes no contents, and a refusal leaves ordinary
            // pages.
            unsafe { libc::madvise(start.add(offset).cast(), bytes, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_and_small_buffers_stay_as_they_are() {
        for len in [0, 1, 100, 3 << 20] {
            let mut buffer = vec![7u8; len];
            advise_huge_pages(&mut buffer);
            assert!(buffer.iter().all(|byte| *byte == 7), "{len} bytes");
        }
    }
}
