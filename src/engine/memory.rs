//! Memory for large values, in large pages.
//!
//! A program that writes to fresh memory enters the kernel once for each page. With pages of 4 KiB that takes several times as
//! long as copying the same bytes. Linux gives pages of 2 MiB to a program that asks for them, if the machine's settings
//! allow it (`madvise` or `always` in `/sys/kernel/mm/transparent_hugepage/enabled`).

/// Allocations of at least this size ask for large pages. The allocator serves smaller ones from memory that it reuses.
const LARGE: usize = 4 << 20;

/// Returns an empty vector with the given capacity.
pub(crate) fn vec_with_capacity<T>(elements: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(elements);
    advise(&mut vec);
    vec
}

/// Reserves memory for more elements, as [`Vec::reserve`] does.
#[inline]
pub(crate) fn reserve<T>(vec: &mut Vec<T>, additional: usize) {
    if vec.capacity() - vec.len() < additional {
        grow(vec, additional);
    }
}

#[cold]
fn grow<T>(vec: &mut Vec<T>, additional: usize) {
    vec.reserve(additional);
    advise(vec);
}

/// Asks for large pages for the memory of a large vector.
fn advise<T>(vec: &mut Vec<T>) {
    let bytes = vec.capacity().saturating_mul(size_of::<T>());
    if bytes >= LARGE {
        advise_range(vec.as_mut_ptr() as usize, bytes);
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "there is no safe way to ask for large pages for memory of the allocator")]
fn advise_range(start: usize, bytes: usize) {
    const PAGE: usize = 4096;
    let first = start.next_multiple_of(PAGE);
    let end = (start + bytes) / PAGE * PAGE;
    // SAFETY: this advice changes neither the contents nor the access rights of memory, only the size of its pages. If the kernel
    // refuses it, for instance for misaligned addresses (pages may be larger than 4 KiB), it has no effect.
    let _ = unsafe { libc::madvise(first as *mut libc::c_void, end.saturating_sub(first), libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_range(_start: usize, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_of_all_sizes_is_reserved_and_keeps_its_contents() {
        for bytes in [0, 1, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE] {
            let mut vec = vec_with_capacity::<u8>(bytes);
            assert!(vec.is_empty() && vec.capacity() >= bytes);
            vec.resize(bytes, 7);
            reserve(&mut vec, 2 * LARGE);
            assert!(vec.capacity() >= bytes + 2 * LARGE);
            assert!(vec.len() == bytes && vec.iter().all(|&byte| byte == 7));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_large_vector_lies_in_memory_that_is_marked_for_large_pages() {
        let marked = |vec: &Vec<f64>| {
            let middle = vec.as_ptr() as usize + vec.capacity() * 4;
            let maps = std::fs::read_to_string("/proc/self/smaps").expect("it can be read");
            let mut inside = false;
            for line in maps.lines() {
                let range = line.split(' ').next().and_then(|range| range.split_once('-'));
                let address = |text: &str| usize::from_str_radix(text, 16).ok();
                if let Some((Some(start), Some(end))) = range.map(|(start, end)| (address(start), address(end))) {
                    inside = (start..end).contains(&middle);
                } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                    return flags.split_whitespace().any(|flag| flag == "hg");
                }
            }
            panic!("the vector is nowhere");
        };
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let mut vec = vec_with_capacity::<f64>(LARGE);
        assert!(marked(&vec), "made with room");
        vec = Vec::new();
        reserve(&mut vec, LARGE);
        assert!(marked(&vec), "grown");
    }
}
