#![no_main]

use skupper_tests::fuzz::{self, heap::Heap};

#[global_allocator]
static HEAP: Heap = Heap;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(fuzz::observer(data)));
