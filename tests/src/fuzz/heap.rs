//! An allocator that counts, for each thread, how much memory is allocated.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator with counters. It counts only in a program that makes it its
/// `#[global_allocator]`; elsewhere [`peak`] returns 0.
pub struct Heap;

thread_local! {
    // Without destructors: usable until the thread ends.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(by: isize) {
    let live = LIVE.get() + by;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller upholds the contract that the system's allocator requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes that this thread has allocated and not freed.
pub fn live() -> isize {
    LIVE.get()
}

/// Runs `f` and returns its result and the most bytes that it held at one time.
pub fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = f();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

/// Runs `f` over an input of that length. Fails when it holds more than `base` bytes and `each` for
/// every byte of the input.
pub fn bounded<T>(length: usize, base: usize, each: usize, f: impl FnOnce() -> T) -> T {
    let (result, peak) = peak(f);
    let most = base + each * length;
    assert!(
        peak <= most,
        "{peak} bytes of memory for an input of {length} bytes: the bound is {most}"
    );
    result
}
