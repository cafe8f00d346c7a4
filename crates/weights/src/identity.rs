//! Which weights a checkpoint holds: a hash that tells two of them apart without reading a terabyte.
//!
//! SHA-256 over every weight's name, format, shape and size, and over its content: all of it, or samples. The
//! samples are one page from the middle of every weight that is no routed expert's, and of a fixed number of
//! experts' weights evenly over the names; small weights are read whole. Training or quantising anew changes
//! weights everywhere, so samples tell; a file that was changed in a few bytes by hand needs the whole.

use sha2::{Digest, Sha256};

use crate::catalog::{Part, Weight};
use crate::checkpoint::Checkpoint;

/// Bytes of one sample.
const SAMPLE: usize = 4096;

/// Parts up to this size are read whole.
const SMALL: usize = 64 << 10;

/// How many experts' weights are sampled.
const EXPERTS: usize = 4096;

/// How much of a checkpoint is read to tell it from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityDepth {
    /// Samples: about a second on a cold disk, whatever the size.
    #[default]
    Sampled,
    /// Every byte.
    Full,
}

impl Checkpoint {
    /// The identity of the weights; the two depths give different ones.
    pub fn identity(&self, depth: IdentityDepth) -> [u8; 32] {
        let weights = self.sorted_weights();
        let experts = weights.iter().filter(|(name, _)| is_expert(name)).count();
        let (step, mut expert) = (experts.div_ceil(EXPERTS).max(1), 0);
        let mut hash = Sha256::new();
        hash.update(match depth {
            IdentityDepth::Sampled => b"k2 weights, sampled\0",
            IdentityDepth::Full => b"k2 weights, entire \0",
        });
        for (name, weight) in weights {
            expert += usize::from(is_expert(name));
            let reads = match depth {
                IdentityDepth::Full => Reads::All,
                IdentityDepth::Sampled if is_expert(name) && expert % step != 0 => Reads::Nothing,
                IdentityDepth::Sampled => Reads::Sample,
            };
            add(&mut hash, name.as_bytes());
            parts(weight).into_iter().for_each(|part| add_part(&mut hash, part, reads));
        }
        hash.finalize().into()
    }
}

#[derive(Clone, Copy)]
enum Reads {
    Nothing,
    Sample,
    All,
}

fn is_expert(name: &str) -> bool {
    name.contains(".mlp.experts.")
}

fn parts(weight: &Weight) -> Vec<&Part> {
    match weight {
        Weight::Plain(part) => vec![part],
        Weight::Fp8 { weight, scale_inv } => vec![weight, scale_inv],
        Weight::Int4 { packed, scale, shape } => vec![packed, scale, shape],
    }
}

fn add_part(hash: &mut Sha256, part: &Part, reads: Reads) {
    add(hash, part.encoding.name().as_bytes());
    hash.update((part.shape.len() as u64).to_le_bytes());
    part.shape.iter().for_each(|dim| hash.update((*dim as u64).to_le_bytes()));
    hash.update((part.bytes.len() as u64).to_le_bytes());
    let middle = part.bytes.len() / 2;
    match reads {
        Reads::Nothing => {}
        Reads::Sample if part.bytes.len() > SMALL => hash.update(&part.bytes[middle..middle + SAMPLE]),
        Reads::Sample | Reads::All => hash.update(&part.bytes),
    }
}

/// With its length, so that no two lists of values look alike.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
