//! Drafts of the next tokens: what followed the last few tokens when they stood in the sequence before.
//!
//! Copying from prompt and history (LLMA, arXiv 2304.04487; "prompt lookup decoding") costs no second model. The
//! drafts are computed behind the last token in one step, and a draft counts only as far as the sampler chooses
//! the same tokens from the same logits, so an answer never depends on them. A row more costs about half of a step
//! where experts are read from memory for each token, so drafting rests while fewer than half are right.

/// The tokens that must have stood there before; longer matches are not better enough to look for.
const MATCH: usize = 3;

/// The share of right drafts below which drafting does not pay.
const PAYS: f32 = 0.5;

/// Steps of the first rest, and of the longest.
const RESTS: (usize, usize) = (16, 1024);

/// Drafts for one sequence.
#[derive(Debug)]
pub(crate) struct Drafter {
    /// Most drafts of a step.
    most: usize,
    /// Drafts of the next step, if so many are found.
    length: usize,
    /// The share of drafts that were right, lately.
    rate: f32,
    /// Steps without drafts that are left.
    resting: usize,
    next_rest: usize,
}

impl Drafter {
    /// With 0 there are no drafts.
    pub(crate) fn new(most: usize) -> Drafter {
        Drafter { most, length: most.min(2), rate: 1.0, resting: 0, next_rest: RESTS.0 }
    }

    /// Up to `room` tokens that may follow.
    pub(crate) fn draft(&mut self, tokens: &[u32], room: usize) -> Vec<u32> {
        let length = self.length.min(room);
        if self.resting > 0 || length == 0 {
            self.resting = self.resting.saturating_sub(1);
            return Vec::new();
        }
        // What comes to the end of the sequence goes on as a repetition.
        let copied = last_match(tokens).map_or(&tokens[..0], |found| &tokens[found..]);
        copied.iter().cycle().take(length).copied().collect()
    }

    /// Of so many drafts so many were right.
    pub(crate) fn verified(&mut self, drafted: usize, right: usize) {
        self.rate += 0.25 * (right as f32 / drafted as f32 - self.rate);
        if right == drafted {
            self.length = self.most.min(self.length * 2);
            self.next_rest = RESTS.0;
        } else {
            self.length = right.max(1);
        }
        if self.rate < PAYS {
            (self.resting, self.next_rest) = (self.next_rest, RESTS.1.min(self.next_rest * 2));
            (self.rate, self.length) = (PAYS, 1);
        }
    }
}

/// Behind the last place where the last tokens stood before.
fn last_match(tokens: &[u32]) -> Option<usize> {
    let (before, last) = (tokens.get(..tokens.len().checked_sub(1)?)?, tokens.last_chunk::<MATCH>()?);
    before.windows(MATCH).rposition(|window| window == last).map(|place| place + MATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_last_time_is_drafted() {
        let check = |tokens: &[u32], room: usize, expected: &[u32]| {
            assert_eq!(Drafter::new(8).draft(tokens, room), expected, "{tokens:?}");
        };
        check(&[], 8, &[]);
        check(&[1, 2], 8, &[]);
        check(&[1, 2, 3, 4, 5, 1, 2, 3], 8, &[4, 5]);
        check(&[1, 2, 3, 4, 5, 1, 2, 3], 1, &[4]);
        check(&[1, 2, 3, 4, 5, 1, 2, 3], 0, &[]);
        check(&[1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3], 8, &[9, 1]);
        check(&[7, 7, 7], 8, &[]);
        check(&[7, 7, 7, 7], 8, &[7, 7]);
        check(&[7, 8, 9, 7, 8, 9, 7], 8, &[8, 9]);
        check(&[1, 2, 3, 4, 5, 6], 8, &[]);
        assert!(Drafter::new(0).draft(&[7; 9], 8).is_empty());
    }

    #[test]
    fn drafts_grow_while_they_are_right_and_rest_while_they_are_not() {
        let tokens: Vec<u32> = (0..50).chain(0..3).collect();
        let mut drafter = Drafter::new(8);
        for expected in [2, 4, 8, 8] {
            let drafted = drafter.draft(&tokens, 99).len();
            assert_eq!(drafted, expected);
            drafter.verified(drafted, drafted);
        }
        drafter.verified(8, 3);
        assert_eq!(drafter.draft(&tokens, 99).len(), 3);
        let mut rests = Vec::new();
        while rests.len() < 8 {
            drafter.verified(1, 0);
            let rest = (0..).take_while(|_| drafter.draft(&tokens, 99).is_empty()).count();
            rests.extend((rest > 0).then_some(rest));
        }
        assert_eq!(rests, [16, 32, 64, 128, 256, 512, 1024, 1024]);
    }
}
