//! How much memory a piece of code takes: an allocator that counts, thread by thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, with counts. It counts where a program makes it its `#[global_allocator]`;
/// elsewhere [`peak`] sees nothing.
pub struct Heap;

thread_local! {
    // Neither has a destructor: they can be used as long as the thread runs.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(by: isize) {
    let live = LIVE.get() + by;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: all calls go to the system's allocator as they come.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
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

/// Runs `f`; gives what it gives, and the most octets that it held at one time.
pub fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = f();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

/// Runs `f` over an input of that length, which must never hold more than `base` octets and `each`
/// for every octet of the input.
pub fn bounded<T>(length: usize, base: usize, each: usize, f: impl FnOnce() -> T) -> T {
    let (result, peak) = peak(f);
    let most = base + each * length;
    assert!(
        peak <= most,
        "{peak} octets of memory for an input of {length}: at most {most} are meant"
    );
    result
}
