//! What is measured: prefill or decode, so many tokens, after so many, so many sequences.

use std::error::Error;
use std::fmt;

/// Most tokens of a sequence, and most sequences: beyond lies a slip of the finger.
const MOST: usize = 1 << 20;

/// One line of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) phase: Phase,
    /// Tokens computed per sequence.
    pub(super) len: usize,
    /// Tokens in the cache before.
    pub(super) depth: usize,
    /// Sequences.
    pub(super) batch: usize,
}

/// How the tokens are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In chunks of a prompt.
    Prefill,
    /// One of each sequence at a time.
    Decode,
}

impl Case {
    /// Every prompt at every depth, then every answer at every depth with every number of sequences.
    pub(super) fn all(
        prompts: &[usize],
        generate: &[usize],
        depths: &[usize],
        batches: &[usize],
    ) -> Result<Vec<Case>, Box<dyn Error>> {
        let mut cases = Vec::new();
        for (phase, lens, batches) in
            [(Phase::Prefill, prompts, &[1][..]), (Phase::Decode, generate, batches)]
        {
            for &len in lens.iter().filter(|len| **len > 0) {
                for &depth in depths {
                    cases.extend(batches.iter().map(|&batch| Case { phase, len, depth, batch }));
                }
            }
        }
        match cases.iter().find(|case| case.batch == 0 || case.largest() > MOST) {
            _ if cases.is_empty() => Err("nothing to measure: no length is above 0".into()),
            Some(case) => Err(format!(
                "{case} with {} sequences: sequences must be 1 or more, numbers at most {MOST}",
                case.batch
            )
            .into()),
            None => Ok(cases),
        }
    }

    fn largest(&self) -> usize {
        self.len.max(self.depth).max(self.batch)
    }

    /// Tokens computed in all.
    pub(super) fn tokens(&self) -> usize {
        self.len * self.batch
    }

    /// A shorter one that brings code, weights and threads into place.
    pub(super) fn warm_up(self) -> Case {
        let most = if self.phase == Phase::Prefill { 512 } else { 8 };
        Case { len: self.len.min(most), ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Prefill => write!(f, "prefill {}", self.len)?,
            Phase::Decode => write!(f, "decode {}", self.len)?,
        }
        if self.batch > 1 {
            write!(f, " x {}", self.batch)?;
        }
        if self.depth > 0 {
            write!(f, " at {}", self.depth)?;
        }
        Ok(())
    }
}
