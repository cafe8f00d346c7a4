//! What a row of the cache is known by: its token, and the form in which it attends.
//!
//! A form changes a row's bits, and those of all behind it, so two rows are the same only if tokens and forms from
//! the first on are (`k2_model::attention_form`). Both are in one number: tokens leave the highest bit free.

use std::iter;
use std::ops::Range;

use k2_model::attention_form::decompressed_rows;
use k2_model::{AttentionForm, Config};

/// Set for rows in the decompressed form; the others are absorbed.
const DECOMPRESSED: u32 = 1 << 31;

/// Ids by which answers of earlier turns are found in a prompt: an answer stands behind the first `begin` after
/// `assistant`, and before `end` or the prompt's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerMarkers {
    /// `<|im_assistant|>`.
    pub assistant: u32,
    /// `<|im_middle|>`.
    pub begin: u32,
    /// `<|im_end|>`.
    pub end: u32,
}

/// The rows of a prompt: answers are absorbed, as they were when they were generated; what stands between them has the
/// forms of its turn.
pub(crate) fn rows_of_prompt(config: &Config, markers: Option<&AnswerMarkers>, prompt: &[u32]) -> Vec<u32> {
    let mut rows = prompt.to_vec();
    let mut start = 0;
    let answers = markers.map_or_else(Vec::new, |markers| markers.answers(prompt));
    for answer in answers.into_iter().chain(iter::once(prompt.len()..prompt.len())) {
        let decompressed = decompressed_rows(config, start..answer.start);
        rows[decompressed].iter_mut().for_each(|row| *row |= DECOMPRESSED);
        start = answer.end;
    }
    rows
}

impl AnswerMarkers {
    fn answers(&self, prompt: &[u32]) -> Vec<Range<usize>> {
        let mut answers = Vec::new();
        let mut place = 0;
        let find =
            |id: u32, from: usize| prompt[from..].iter().position(|token| *token == id).map(|at| from + at);
        while let Some(begin) = find(self.assistant, place).and_then(|at| find(self.begin, at)) {
            let end = find(self.end, begin + 1).unwrap_or(prompt.len());
            answers.push(begin + 1..end);
            place = end;
        }
        answers
    }
}

/// The form of a row.
fn form(row: u32) -> AttentionForm {
    if row & DECOMPRESSED == 0 { AttentionForm::Absorbed } else { AttentionForm::Decompressed }
}

/// Runs of rows of one form, with their places.
pub(crate) fn runs(rows: &[u32]) -> impl Iterator<Item = (Range<usize>, AttentionForm)> {
    rows.chunk_by(|a, b| form(*a) == form(*b)).scan(0, |start, run| {
        let range = *start..*start + run.len();
        *start = range.end;
        Some((range, form(run[0])))
    })
}

#[cfg(test)]
mod tests {
    use k2_model::synthetic::{Shape, Synthetic, SyntheticFormat};

    use super::*;

    const MARKERS: AnswerMarkers = AnswerMarkers { assistant: 1, begin: 2, end: 3 };

    /// `lengths`: of turns and answers, in turn. `expected`: runs of the rows; D is decompressed.
    fn check(lengths: &[usize], expected: &[(char, usize)]) {
        let mut prompt = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let is_answer = number % 2 == 1;
            let end: &[u32] = if is_answer { &[] } else { &[1, 9, 2] };
            let beginning: &[u32] = if number > 0 && !is_answer { &[3] } else { &[] };
            let text = vec![9; length - end.len() - beginning.len()];
            [beginning, &text, end].iter().for_each(|part| prompt.extend_from_slice(part));
        }
        let shape = Shape::Small;
        let config = Synthetic { shape, format: SyntheticFormat::Bf16, n_routed_experts: None }.config();
        let rows = rows_of_prompt(&config, Some(&MARKERS), &prompt);
        let plain: Vec<u32> = rows.iter().map(|row| row & !DECOMPRESSED).collect();
        assert_eq!(plain, prompt, "tokens of {lengths:?}");
        let letter = |form| if form == AttentionForm::Decompressed { 'D' } else { 'A' };
        let found: Vec<_> = runs(&rows).map(|(range, form)| (letter(form), range.len())).collect();
        assert_eq!(found, expected, "{lengths:?}");
    }

    #[test]
    fn answers_are_absorbed_and_long_turns_are_not() {
        check(&[50], &[('A', 50)]);
        check(&[512], &[('D', 480), ('A', 32)]);
        check(&[513], &[('D', 512), ('A', 1)]);
        check(&[500, 300], &[('D', 480), ('A', 320)]);
        check(&[500, 300, 40], &[('D', 480), ('A', 360)]);
        check(
            &[500, 300, 400, 20, 400],
            &[('D', 480), ('A', 320), ('D', 384), ('A', 36), ('D', 380), ('A', 20)],
        );
        check(&[50, 1, 50], &[('A', 101)]);
    }

    /// What a turn is followed by changes nothing of it: otherwise the cache would not know it again.
    #[test]
    fn a_dialogue_that_goes_on_keeps_its_rows() {
        let config =
            Synthetic { shape: Shape::Small, format: SyntheticFormat::Bf16, n_routed_experts: None }.config();
        let dialogue: Vec<u32> = (0..3000).map(|place| [1, 2, 3, 9, 9][place * 7919 / 97 % 5]).collect();
        for (end, _) in
            dialogue.iter().enumerate().filter(|(place, token)| *place > 0 && **token == MARKERS.begin)
        {
            let prompt = &dialogue[..=end];
            let is_open = MARKERS.answers(prompt).last().is_some_and(|answer| answer.end == prompt.len());
            if is_open {
                let rows = rows_of_prompt(&config, Some(&MARKERS), prompt);
                let longer = rows_of_prompt(&config, Some(&MARKERS), &dialogue);
                assert_eq!(rows, longer[..rows.len()], "{end}");
            }
        }
    }
}
