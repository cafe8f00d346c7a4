//! Just enough of Rust's lexer (The Rust Reference, "Tokens") to tell code from comments and strings.
//!
//! The checks look for words such as `unsafe`; a word in a comment or a string is none of their business.

/// The source with the insides of comments, strings and character literals blanked. Lines stay lines.
pub(crate) fn code_only(source: &str) -> String {
    let mut rest = source;
    let mut code = String::with_capacity(source.len());
    while let Some(first) = rest.chars().next() {
        let blanked = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' | 'b' if !ends_in_word(&code) => prefixed_literal(rest),
            '\'' => character(rest),
            _ => 0,
        };
        let (literal, after) = rest.split_at(blanked.max(first.len_utf8()));
        match blanked {
            0 => code.push(first),
            _ => code.extend(literal.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = after;
    }
    code
}

/// True for each line that belongs to an item under `#[cfg(test)]`; takes the output of [`code_only`].
pub(crate) fn test_lines(code: &str) -> Vec<bool> {
    let (mut depth, mut test_depth) = (0usize, None);
    let mut waiting = false; // after the attribute, before the item's brace
    code.lines()
        .map(|line| {
            waiting |= line.contains("#[cfg(test)]");
            let was_test = waiting || test_depth.is_some();
            for symbol in line.chars() {
                match symbol {
                    '{' => {
                        if std::mem::take(&mut waiting) {
                            test_depth = test_depth.or(Some(depth));
                        }
                        depth += 1;
                    }
                    '}' => {
                        depth = depth.saturating_sub(1);
                        test_depth = test_depth.filter(|&outside| depth > outside);
                    }
                    ';' => waiting = false,
                    _ => {}
                }
            }
            was_test
        })
        .collect()
}

/// Whether `word` stands in `line` by itself, not as a part of a longer name.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        !ends_in_word(&line[..at]) && !after.is_some_and(is_word)
    })
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of a comment that may hold others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of `"…"`.
fn string(rest: &str) -> usize {
    let mut escaped = true; // the opening quote does not close
    let end = rest.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.map_or(rest.len(), |end| end + 1)
}

/// Length of `r"…"`, `r#"…"#`, `b"…"`, `b'…'`, `br#"…"#`; 0 if it is a name after all.
fn prefixed_literal(rest: &str) -> usize {
    let body = rest.strip_prefix('b').unwrap_or(rest);
    let prefix = rest.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if !raw[hashes..].starts_with('"') {
            return 0;
        }
        let closing = format!("\"{}", "#".repeat(hashes));
        let open = prefix + 1 + hashes + 1;
        return rest[open..].find(&closing).map_or(rest.len(), |at| open + at + closing.len());
    }
    match body.as_bytes().first() {
        Some(b'"') if prefix == 1 => prefix + string(body),
        Some(b'\'') if prefix == 1 => prefix + character(body),
        _ => 0,
    }
}

/// Length of `'x'` or `'\u{1F600}'`; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut inside = rest.char_indices().skip(1);
    match inside.next() {
        Some((_, '\\')) => {
            let after_escaped = inside.nth(1).map_or(rest.len(), |(at, _)| at);
            rest[after_escaped.min(rest.len())..].find('\'').map_or(rest.len(), |at| after_escaped + at + 1)
        }
        Some(_) => inside.next().filter(|&(_, c)| c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked() {
        let check = |source: &str, expected: &str| assert_eq!(code_only(source), expected, "{source}");
        check("a // unsafe\nb", "a          \nb");
        check("a /* x /* y */ \n */ b", "a              \n    b");
        check(r#"f("a\"b", c)"#, "f(      , c)");
        check(r##"r#"a"b"# + br"x" + b"y""##, "         +       +     ");
        check(r"let c = '\''; '{' 'a'", "let c =     ;        ");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check(r"'\u{1F600}'}", "           }");
        check("bar\"x\"", "bar   ");
        check("\"open", "     ");
    }

    #[test]
    fn items_under_cfg_test_are_found() {
        let check = |source: &str, expected: &[bool]| {
            assert_eq!(test_lines(&code_only(source)), expected, "{source}")
        };
        check(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  x\n}\nfn b() {}",
            &[false, true, true, true, true, false],
        );
        check("#[cfg(test)]\nmod tests;\nfn b() {\n}", &[true, true, false, false]);
        check("mod a {\n#[cfg(test)]\nfn f() {\n}\nfn g() {}\n}", &[false, true, true, true, false, false]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("#![allow(unsafe_code)]", "unsafe"));
    }
}
