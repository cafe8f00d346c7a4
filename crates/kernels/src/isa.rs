//! Which instruction set the kernels use, chosen once at run time.
//!
//! A kernel is written once, as plain loops over small arrays with `f32::mul_add`, and compiled once
//! per instruction set by [`per_isa!`]. Because the order of operations is in the source and fused
//! multiply-add is exact everywhere, all instruction sets give the same bits; they differ in speed.
//! `K2_ISA=scalar|avx2|avx512|amx|neon` forces one.

use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// What every machine of the architecture has; the oracle.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL; VNNI and more are looked for where they are used.
    Avx512,
    /// That with VNNI, and products of bytes in the tiles of AMX.
    Amx,
    /// NEON, part of every aarch64.
    Neon,
}

impl Isa {
    /// The name that `K2_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
        }
    }

    /// Those that this machine can run, the slowest first.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            found.extend(avx2.then_some(Isa::Avx2));
            found.extend((avx2 && avx512).then_some(Isa::Avx512));
            let vnni = is_x86_feature_detected!("avx512vnni");
            found.extend((avx2 && avx512 && vnni && amx_is_granted()).then_some(Isa::Amx));
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Isa::Neon);
        found
    }
}

/// Whether the processor has tiles and products of bytes in them, and the system lets this process use them: their 8 KB of
/// state are saved only for those that have asked (Linux, Documentation/arch/x86/xstate.rst).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_granted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let has = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8;
    // SAFETY: a system call that only grants; systems that do not know it answer with an error.
    has && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_granted() -> bool {
    false
}

/// `K2_ISA` names an instruction set that does not exist or that this machine lacks.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("K2_ISA={found} is not available here; this machine has {available}")]
pub struct IsaError {
    found: String,
    available: String,
}

/// Checks `K2_ISA`. The binary calls this first, so that a wrong value ends in an error message;
/// [`isa`] itself falls back to the best.
pub fn check_environment() -> Result<Isa, IsaError> {
    choose(std::env::var_os("K2_ISA").map(|name| name.to_string_lossy().into_owned()).as_deref())
}

/// The instruction set in force.
pub fn isa() -> Isa {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    *CHOSEN.get_or_init(|| check_environment().unwrap_or_else(|_| best()))
}

fn best() -> Isa {
    Isa::available().pop().unwrap_or(Isa::Scalar)
}

fn choose(wanted: Option<&str>) -> Result<Isa, IsaError> {
    let Some(wanted) = wanted else { return Ok(best()) };
    let available = Isa::available();
    available.iter().copied().find(|isa| isa.name() == wanted).ok_or_else(|| IsaError {
        found: wanted.to_owned(),
        available: available.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", "),
    })
}

/// Defines `fn name(isa, args…)` that runs an `#[inline(always)]` body compiled for that instruction set; for AVX-512 and AMX
/// another one, if there is one.
macro_rules! per_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path) => {
        $crate::isa::per_isa! { $(#[$meta])* $vis fn $name($($arg: $ty),*) = $body, avx512 = $body }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path, avx512 = $wide:path) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) {
                $wide($($arg),*)
            }
            match isa {
                // SAFETY: these values of `Isa` come from `Isa::available`, which has seen the features.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 | $crate::isa::Isa::Amx => unsafe { avx512($($arg),*) },
                _ => $body($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_refused_with_what_is_there() {
        assert_eq!(choose(Some("scalar")), Ok(Isa::Scalar));
        assert_eq!(choose(None), Ok(best()));
        let error = choose(Some("sse9")).unwrap_err().to_string();
        assert!(error.starts_with("K2_ISA=sse9 is not available here; this machine has scalar"), "{error}");
    }
}
