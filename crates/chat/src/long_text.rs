//! The long-text rule of Kimi's tokenizer (`encode` in tokenization_kimi.py, as in Llama 3's): a
//! text is cut every 400,000 characters, and inside each cut a new part begins whenever a run of
//! white space, or of anything else, would exceed 25,000 characters. Each part is encoded on its
//! own, so the rule changes ids and has to be followed exactly. "Character" is a Unicode code
//! point and "white space" is Python's `str.isspace`.

/// Characters per cut.
pub const CUT_CHARS: usize = 400_000;
/// Longest run of white space, or of other characters, inside a part.
pub const RUN_CHARS: usize = 25_000;

/// The parts of `text`, in order; together they are `text`. An empty text has none.
pub fn split(text: &str) -> Parts<'_> {
    Parts { rest: text, left_in_cut: CUT_CHARS }
}

/// Iterator of [`split`].
pub struct Parts<'t> {
    rest: &'t str,
    left_in_cut: usize,
}

impl<'t> Iterator for Parts<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let (part, rest) = self.rest.split_at(self.end_of_part());
        self.rest = rest;
        Some(part)
    }
}

impl Parts<'_> {
    /// Where the part at the head of `rest` ends, in bytes. Run lengths start anew with each part.
    fn end_of_part(&mut self) -> usize {
        if self.rest.len() <= RUN_CHARS.min(self.left_in_cut) {
            return self.rest.len(); // no more characters than bytes: nothing to cut
        }
        let (mut run, mut run_is_space) = (0, false);
        for (at, c) in self.rest.char_indices() {
            if self.left_in_cut == 0 {
                self.left_in_cut = CUT_CHARS;
                return at;
            }
            run = if is_space(c) == run_is_space { run + 1 } else { 1 };
            run_is_space = is_space(c);
            if run > RUN_CHARS {
                return at;
            }
            self.left_in_cut -= 1;
        }
        self.rest.len()
    }
}

/// Python's `str.isspace` for one character: Unicode white space and the four separators
/// U+001C..U+001F.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
