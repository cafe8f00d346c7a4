//! Large pages behind large buffers: fewer addresses to translate, and hardware that reads ahead does not stop at
//! every 4 KB (Linux, Documentation/admin-guide/mm/transhuge.rst).

use std::ops::{Deref, DerefMut};

/// What a load takes in at once, in bytes: one that crosses the end costs two.
pub(crate) const CACHE_LINE: usize = 64;

/// Numbers that begin where a cache line does. Before they are written they are zeros, without memory; then they lie in huge
/// pages.
pub struct Lines<T> {
    numbers: Vec<T>,
    first: usize,
}

impl<T: Copy + Default> Lines<T> {
    /// So many zeros.
    pub fn zeros(len: usize) -> Lines<T> {
        let mut numbers = vec![T::default(); len + CACHE_LINE / size_of::<T>()];
        advise_huge_pages(&mut numbers);
        let first = numbers.as_ptr().align_offset(CACHE_LINE);
        numbers.truncate(first + len);
        Lines { numbers, first }
    }
}

impl<T> Deref for Lines<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.numbers[self.first..]
    }
}

impl<T> AsRef<[T]> for Lines<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T> DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.first..]
    }
}

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
    fn lines_are_zeros_that_begin_one() {
        for len in [0, 1, 100, 3 << 20] {
            let mut lines = Lines::<u16>::zeros(len);
            assert!(lines.len() == len && lines.iter().all(|number| *number == 0), "{len} numbers");
            assert_eq!(lines.as_ptr().addr() % CACHE_LINE, 0);
            lines.fill(7);
            assert!(lines.iter().all(|number| *number == 7), "{len} numbers");
        }
    }

    #[test]
    fn contents_and_small_buffers_stay_as_they_are() {
        for len in [0, 1, 100, 3 << 20] {
            let mut buffer = vec![7u8; len];
            advise_huge_pages(&mut buffer);
            assert!(buffer.iter().all(|byte| *byte == 7), "{len} bytes");
        }
    }
}
