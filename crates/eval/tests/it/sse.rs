//! Server-sent events, cut anywhere.

use std::time::Duration;

use k2_eval::sse::{Event, EventParser};
use proptest::prelude::*;

fn events(pieces: &[&[u8]]) -> Vec<Event> {
    let mut parser = EventParser::default();
    for (index, piece) in pieces.iter().enumerate() {
        parser.push(piece, Duration::from_secs(index as u64));
    }
    parser.finish()
}

#[test]
fn fields_make_events() {
    let check = |text: &str, expected: &[(Option<&str>, &str)]| {
        let found = events(&[text.as_bytes()]);
        let found: Vec<_> = found.iter().map(|event| (event.name.as_deref(), event.data.as_str())).collect();
        assert_eq!(found, expected, "{text:?}");
    };
    check("data: a\n\ndata: b\n\n", &[(None, "a"), (None, "b")]);
    check("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &[(None, "a"), (None, "b"), (None, "c")]);
    check("event: ping\ndata: a\n\n", &[(Some("ping"), "a")]);
    check("event: ping\n\ndata: a\n\n", &[(None, "a")]);
    check("data: a\ndata: b\n\n", &[(None, "a\nb")]);
    check("data:a\ndata:  b\n\n", &[(None, "a\n b")]);
    check(": keep-alive\n\nid: 7\nretry: 1\nunknown\ndata: a\n\n", &[(None, "a")]);
    check("data\n\n", &[(None, "")]);
    check("data: unfinished\n", &[]);
    check("", &[]);
}

#[test]
fn events_have_the_time_of_their_last_byte() {
    let found = events(&[b"data: a\n", b"\nda", b"ta: b\n\n"]);
    assert_eq!(found.iter().map(|event| event.at.as_secs()).collect::<Vec<_>>(), [1, 2]);
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(text in "[a\\n\\r: ]{0,20}(data: x\\r?\\n){0,3}[\\n\\r]{0,3}(event: e\\n|data: é\\r\\n|\\n){0,8}", cuts in prop::collection::vec(0usize..64, 0..6)) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let strip = |events: Vec<Event>| events.into_iter().map(|event| (event.name, event.data)).collect::<Vec<_>>();
        prop_assert_eq!(strip(events(&pieces)), strip(events(&[bytes])));
    }
}
