//! What this machine can do at the moment: bytes read per second, f32 and int8 operations per second.
//!
//! The yardsticks of `k2 bench` (the roofline of Williams, Waterman and Patterson, CACM 52(4), 2009), measured
//! on the threads that compute. Neighbours on the machine move them, so they are measured in the same process
//! as what is compared with them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::dot::{LANES, Sum};
use crate::huge_pages::advise_huge_pages;
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;
use crate::isa::{isa, per_isa};
use crate::pool::Pool;

/// Read for the bandwidth; larger than any cache.
const BUFFER: usize = 512 << 20;

/// Bytes that one task reads.
const PIECE: usize = 1 << 20;

/// Times that each measurement is repeated; the best counts.
const REPETITIONS: usize = 5;

/// How long one repetition of an arithmetic measurement lasts.
const ARITHMETIC: Duration = Duration::from_millis(30);

/// Measured rates per second.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes read from memory in ordinary pages.
    pub read: f64,
    /// Bytes read from memory in huge pages, where the system gives them.
    pub read_huge_pages: f64,
    /// f32 operations, a fused multiply-add counting as two.
    pub f32_operations: f64,
    /// int8 operations, a multiply-add counting as two: products of bytes in pairs, widened and added
    /// (AVX2 `vpmaddubsw`, `vpmaddwd`, `vpaddd`; `vpdpbusd` where AVX-512 has it; `tdpbssd` in full tiles of AMX). Not measured
    /// without AVX2.
    pub int8_operations: Option<f64>,
}

impl Limits {
    /// Measures; takes about two seconds, and half a gigabyte of memory while it lasts.
    pub fn measure(pool: &Pool) -> Limits {
        let mut buffer = vec![1u64; BUFFER / 8];
        let read = read_bandwidth(pool, &buffer);
        drop(buffer);
        buffer = Vec::with_capacity(BUFFER / 8);
        advise_huge_pages(buffer.spare_capacity_mut());
        buffer.resize(BUFFER / 8, 1);
        let read_huge_pages = read_bandwidth(pool, &buffer);
        Limits {
            read,
            read_huge_pages,
            f32_operations: f32_operations(pool),
            int8_operations: int8_operations(pool),
        }
    }

    /// The better of the two kinds of pages.
    pub fn best_read(&self) -> f64 {
        self.read.max(self.read_huge_pages)
    }
}

fn read_bandwidth(pool: &Pool, buffer: &[u64]) -> f64 {
    let (isa, words) = (isa(), PIECE / 8);
    let one = || {
        let start = Instant::now();
        pool.run(buffer.len() / words, |task| {
            let mut sum = 0;
            sum_words(isa, &buffer[task * words..][..words], &mut sum);
            black_box(sum);
        });
        size_of_val(buffer) as f64 / start.elapsed().as_secs_f64()
    };
    best(one)
}

per_isa! {
    fn sum_words(words: &[u64], sum: &mut u64) = sum_words_body
}

#[inline(always)]
fn sum_words_body(words: &[u64], sum: &mut u64) {
    *sum = words.iter().fold(0, |sum, word| sum ^ word);
}

/// Chains of multiply-adds that do not wait for each other, as many as the registers hold.
fn f32_operations(pool: &Pool) -> f64 {
    let of = |chains: usize, work: &(dyn Fn(usize) + Sync)| {
        best(|| per_second(pool, (chains * LANES * 2) as f64, work))
    };
    match isa() {
        // SAFETY: this value of `Isa` comes from `Isa::available`, which has seen AVX-512 F.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => of(WIDE_CHAINS, &|rounds| unsafe { f32_avx512(rounds, black_box(0.999)) }),
        isa => of(CHAINS, &|rounds| multiply_add(isa, rounds, black_box(0.999))),
    }
}

/// Chains where there are 16 registers, a sum of 16 lanes taking two.
const CHAINS: usize = 6;

/// Chains where a register is as long as a sum.
#[cfg(target_arch = "x86_64")]
const WIDE_CHAINS: usize = 12;

per_isa! {
    fn multiply_add(rounds: usize, factor: f32) = multiply_add_body
}

#[inline(always)]
fn multiply_add_body(rounds: usize, factor: f32) {
    let mut sums: [Sum; CHAINS] = [[1.0; LANES]; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            for lane in sum {
                *lane = lane.mul_add(factor, factor);
            }
        }
    }
    black_box(sums);
}

/// In intrinsics: chains of 16 lanes the compiler makes into vectors across chains, which gather and scatter.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn f32_avx512(rounds: usize, factor: f32) {
    use std::arch::x86_64::*;
    let (factor, mut sums) = (_mm512_set1_ps(factor), [_mm512_set1_ps(1.0); WIDE_CHAINS]);
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, factor);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
fn int8_operations(pool: &Pool) -> Option<f64> {
    let of =
        |per_round: usize, work: &(dyn Fn(usize) + Sync)| best(|| per_second(pool, per_round as f64, work));
    match isa() {
        // SAFETY: this value of `Isa` comes from `Isa::available`, which has seen AMX and asked the system.
        Isa::Amx => Some(of(2 * 16 * 16 * 64 * AMX_CHAINS, &|rounds| unsafe { int8_amx(rounds) })),
        Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => {
            // SAFETY: VNNI has just been seen, the rest by `Isa::available`.
            Some(of(2 * WIDE_CHAINS * 64, &|rounds| unsafe { int8_vnni(rounds) }))
        }
        // SAFETY: these values of `Isa` come from `Isa::available`, which has seen AVX2.
        Isa::Avx2 | Isa::Avx512 => Some(of(INT8_CHAINS * 64, &|rounds| unsafe { int8_avx2(rounds) })),
        Isa::Scalar | Isa::Neon => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn int8_operations(_: &Pool) -> Option<f64> {
    None
}

/// Chains of int8 products.
#[cfg(target_arch = "x86_64")]
const INT8_CHAINS: usize = 6;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn int8_avx2(rounds: usize) {
    use std::arch::x86_64::*;
    let (ones, mut b) = (_mm256_set1_epi16(1), _mm256_set1_epi8(black_box(1)));
    let a: [__m256i; INT8_CHAINS] = std::array::from_fn(|i| _mm256_set1_epi8(black_box(i as i8)));
    let mut sums = [_mm256_setzero_si256(); INT8_CHAINS];
    for _ in 0..rounds {
        b = _mm256_xor_si256(b, ones); // another factor each round: nothing can be taken out of the loop
        for (sum, a) in sums.iter_mut().zip(&a) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(*a, b), ones));
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_vnni(rounds: usize) {
    use std::arch::x86_64::*;
    let (a, b) = (_mm512_set1_epi8(black_box(1)), _mm512_set1_epi8(black_box(1)));
    let mut sums = [_mm512_setzero_si512(); WIDE_CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    black_box(sums);
}

/// Tiles of sums.
#[cfg(target_arch = "x86_64")]
const AMX_CHAINS: usize = 4;

/// In full tiles, whose numbers do not matter.
///
/// # Safety
/// The process may use the tiles of AMX.
#[cfg(target_arch = "x86_64")]
unsafe fn int8_amx(rounds: usize) {
    use std::arch::asm;
    let mut shapes = [0u8; 64];
    shapes[0] = 1; // the only palette
    for tile in 0..AMX_CHAINS + 2 {
        (shapes[16 + 2 * tile], shapes[48 + tile]) = (64, 16);
    }
    // SAFETY: 64 bytes; by the caller's promise.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, preserves_flags)) };
    for _ in 0..rounds {
        // SAFETY: as above.
        unsafe {
            asm!(
                "tdpbssd tmm0, tmm4, tmm5",
                "tdpbssd tmm1, tmm4, tmm5",
                "tdpbssd tmm2, tmm4, tmm5",
                "tdpbssd tmm3, tmm4, tmm5",
                options(nostack, nomem, preserves_flags)
            )
        };
    }
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// Operations per second of `work`, which does `per_round` in each of the rounds it is asked for, on all threads.
fn per_second(pool: &Pool, per_round: f64, work: &(dyn Fn(usize) + Sync)) -> f64 {
    const ROUNDS: usize = 10_000;
    let start = Instant::now();
    work(ROUNDS);
    let tasks =
        pool.threads() * (ARITHMETIC.as_secs_f64() / start.elapsed().as_secs_f64()).clamp(1.0, 1e5) as usize;
    let start = Instant::now();
    pool.run(tasks, |_| work(ROUNDS));
    per_round * (ROUNDS * tasks) as f64 / start.elapsed().as_secs_f64()
}

fn best(one: impl Fn() -> f64) -> f64 {
    (0..REPETITIONS).map(|_| one()).fold(0.0, f64::max)
}
