//! The client against endpoints that do not answer, or not well.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use k2_eval::{Body, Endpoint, EndpointError, Options};
use serde_json::json;

use crate::vendor;

/// An endpoint that says these bytes to everybody, and then hangs up or not.
fn says(bytes: &'static [u8], hangs_up: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            drop(connection.read(&mut [0; 4096]));
            drop(connection.write_all(bytes));
            if !hangs_up {
                kept.push(connection);
            }
        }
    });
    address
}

fn endpoint(url: &str) -> Endpoint {
    let options = Options { timeout: Duration::from_millis(500), max_body: 1000, ..Options::default() };
    Endpoint::new(url, &options).unwrap()
}

#[test]
fn every_way_to_get_no_answer_has_its_error() {
    let check = |url: String, expected: &str| {
        let error = endpoint(&url).post("x", &json!({})).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(format!("http://{closed}"), "/v1/x cannot be reached");
    check(says(b"", true), "cannot be reached");
    check(says(b"", false), "has not answered within 500ms");
    check(says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", false), "has not answered within 500ms");
    check(says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", true), "breaks off after 3 bytes");
    check(says(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na\xff\xff", true), "is not UTF-8 after 1 bytes");
    const LONG: &[u8] = &{
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let (mut long, mut index) = ([b'x'; 2000], 0);
        while index < head.len() {
            long[index] = head[index];
            index += 1;
        }
        long
    };
    check(says(LONG, true), "is longer than 1000 bytes");
}

#[test]
fn addresses_and_keys() {
    let check = |url: &str, expected: Result<&str, &str>| {
        let found = Endpoint::new(url, &Options::default()).map(|endpoint| endpoint.url().to_owned());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, _) => panic!("{url}: {found:?}"),
        }
    };
    check("http://127.0.0.1:8000", Ok("http://127.0.0.1:8000/v1"));
    check("https://example.com/", Ok("https://example.com/v1"));
    check("https://example.com/api/v1/", Ok("https://example.com/api/v1"));
    check("localhost:8000", Err("expected one like http://127.0.0.1:8000/v1"));
    check("ftp://example.com", Err("its scheme is ftp"));
    check("http://example.com/v1?key=1", Err("it has a query"));
    check("not an address", Err("is no address of an endpoint"));
    let key = Options { api_key: Some("line\nbreak".into()), ..Options::default() };
    assert!(matches!(Endpoint::new("http://localhost", &key), Err(EndpointError::Key)));
}

#[test]
fn the_first_model_is_the_default() {
    let first = |url: &str| endpoint(url).first_model().map_err(|error| error.to_string());
    assert_eq!(first(&vendor::start(vendor::flawless)), Ok(vendor::MODEL.to_owned()));
    let error = first(&says(b"HTTP/1.1 404 X\r\ncontent-length: 2\r\n\r\nno", true)).unwrap_err();
    assert!(error.contains("status 404 and no list of models (\"no\"); name the model"), "{error}");
}

#[test]
fn redirects_are_not_followed() {
    let moved = b"HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(endpoint(&says(moved, true)).post("x", &json!({})).unwrap().status, 302);
}

#[test]
fn a_stream_comes_as_events() {
    let stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\ndata: 1\n\n";
    let response = endpoint(&says(stream, true)).post("x", &json!({})).unwrap();
    let Body::Events(events) = response.body else { panic!("{response:?}") };
    assert_eq!(events[0].data, "1");
}

/// One that answers the first request of a connection and then says nothing more.
#[test]
fn each_request_has_a_connection_of_its_own() {
    let endpoint = endpoint(&says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false));
    for _ in 0..2 {
        assert_eq!(endpoint.post("x", &json!({})).unwrap().status, 200);
    }
}
