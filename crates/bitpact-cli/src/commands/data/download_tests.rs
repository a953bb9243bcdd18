//! Downloads from a server on this machine that behaves in every way it should not.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::*;

/// What the server does with one connection.
#[derive(Clone, Copy)]
enum Answer {
    /// The file, or the range of it that was asked for.
    Serve,
    /// The same, but the connection closes after this many bytes of it.
    Break(usize),
    /// The whole file, whatever was asked for.
    Whole,
    /// A status and no file.
    Status(&'static str),
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Answers one connection after the other, then gives back what `Range` said in each.
fn serve(answers: Vec<Answer>) -> (String, JoinHandle<Vec<Option<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file.bin", listener.local_addr().unwrap());
    let answer_all = move || answers.iter().map(|&answer| respond(listener.accept().unwrap().0, answer)).collect();
    (url, std::thread::spawn(answer_all))
}

fn respond(mut stream: TcpStream, answer: Answer) -> Option<String> {
    let mut range = None;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("range: ") {
            range = Some(value.to_owned());
        }
    }
    let content = content();
    let from = range.as_ref().map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
    let (status, from) = match (answer, from) {
        (Answer::Status(status), _) => (status.to_owned(), content.len()),
        (Answer::Whole, _) | (_, None) => ("200 OK".to_owned(), 0),
        (_, Some(from)) if from >= content.len() => {
            (format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{}", content.len()), content.len())
        }
        (_, Some(from)) => {
            let last = content.len() - 1;
            (format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{}", content.len()), from)
        }
    };
    let body = &content[from..];
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).unwrap();
    let sent = if let Answer::Break(after) = answer { &body[..after.min(body.len())] } else { body };
    // The client may have seen enough.
    let _ = stream.write_all(sent);
    range
}

/// The outcome, what the server was asked, and the partial file afterwards.
fn run(answers: Vec<Answer>, before: &[u8], md5: &str) -> (Result<()>, Vec<Option<String>>, Option<Vec<u8>>) {
    let home = tempfile::tempdir().unwrap();
    let part: PathBuf = home.path().join("file.bin.part");
    if !before.is_empty() {
        fs::write(&part, before).unwrap();
    }
    let (url, server) = serve(answers);
    let mut last = (0, 0);
    let source = Source { url: &url, bytes: content().len() as u64, md5 };
    let result =
        download(&agent(false, Duration::from_secs(20)), &source, &part, &mut |done, total| last = (done, total));
    assert!(last.0 <= last.1);
    (result.map(drop), server.join().unwrap(), fs::read(&part).ok())
}

fn good_md5() -> String {
    format!("{:x}", md5::compute(content()))
}

fn range(from: usize) -> Option<String> {
    Some(format!("bytes={from}-"))
}

#[test]
fn a_whole_file_arrives() {
    let (result, asked, part) = run(vec![Answer::Serve], &[], &good_md5());
    result.unwrap();
    assert_eq!((asked, part), (vec![None], Some(content())));
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let answers = vec![Answer::Break(30_000), Answer::Break(50_000), Answer::Serve];
    let (result, asked, part) = run(answers, &[], &good_md5());
    result.unwrap();
    assert_eq!((asked, part), (vec![None, range(30_000), range(80_000)], Some(content())));
}

#[test]
fn a_later_call_goes_on_from_the_partial_file() {
    let before = &content()[..12_345];
    let (result, asked, part) = run(vec![Answer::Serve], before, &good_md5());
    result.unwrap();
    assert_eq!((asked, part), (vec![range(12_345)], Some(content())));
    // A server without ranges sends everything again.
    let (result, _, part) = run(vec![Answer::Whole], before, &good_md5());
    result.unwrap();
    assert_eq!(part, Some(content()));
    // All of it was there already.
    let (result, asked, part) = run(vec![Answer::Serve], &content(), &good_md5());
    result.unwrap();
    assert_eq!((asked, part), (vec![range(100_000)], Some(content())));
}

#[test]
fn connections_that_bring_nothing_end_it_and_leave_the_part() {
    let (result, asked, part) = run(vec![Answer::Break(40_000), Answer::Break(0)], &[], &good_md5());
    let text = format!("{:#}", result.unwrap_err());
    assert!(text.contains("stopped after 40000 bytes") && text.contains("goes on"), "{text}");
    assert_eq!((asked.len(), part.map(|part| part.len())), (2, Some(40_000)));
}

#[test]
fn a_wrong_checksum_removes_the_file_and_tells_both() {
    let cases = [(&[][..], "0".repeat(32)), (b"other bytes that came before", good_md5())];
    for (before, md5) in cases {
        let (result, _, part) = run(vec![Answer::Serve], before, &md5);
        let text = format!("{:#}", result.unwrap_err());
        assert!(text.contains("what came has the MD5") && text.contains("removed"), "{text}");
        assert_eq!(part, None);
    }
}

#[test]
fn a_status_is_told_and_leaves_nothing() {
    for status in ["404 Not Found", "500 Internal Server Error", "403 Forbidden"] {
        let (result, _, part) = run(vec![Answer::Status(status)], &[], &good_md5());
        let text = format!("{:#}", result.unwrap_err());
        assert!(text.contains(&format!("HTTP status {}", &status[..3])), "{text}");
        assert_eq!(part, None);
    }
    let (result, _, part) = run(vec![Answer::Status("503 Service Unavailable")], &content()[..10], &good_md5());
    assert!(format!("{:#}", result.unwrap_err()).contains("HTTP status 503"));
    assert_eq!(part.map(|part| part.len()), Some(10), "what was there stays");
}

#[test]
fn more_than_twice_the_published_size_is_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let part = home.path().join("part");
    let (url, server) = serve(vec![Answer::Serve]);
    let source = Source { url: &url, bytes: 10_000, md5: &good_md5() };
    let error = download(&agent(false, Duration::from_secs(20)), &source, &part, &mut |_, _| {}).unwrap_err();
    assert!(format!("{error:#}").contains("more than 20000 bytes"), "{error:#}");
    server.join().unwrap();
    assert!(!part.exists());
}

#[test]
fn without_a_mirror_only_https_is_spoken() {
    let home = tempfile::tempdir().unwrap();
    let source = Source { url: "http://127.0.0.1:9/file.bin", bytes: 1, md5: "" };
    assert!(
        download(&agent(true, Duration::from_secs(20)), &source, &home.path().join("part"), &mut |_, _| {}).is_err()
    );
}

#[test]
fn a_server_that_goes_silent_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file.bin", listener.local_addr().unwrap());
    let home = tempfile::tempdir().unwrap();
    let (part, md5) = (home.path().join("file.bin.part"), good_md5());
    let source = Source { url: &url, bytes: content().len() as u64, md5: &md5 };
    // It says nothing at all, or stops within the file; the connection stays open.
    for sends in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhello",
    ] {
        let text = std::thread::scope(|scope| {
            let (done, wait) = std::sync::mpsc::channel::<()>();
            let listener = &listener;
            scope.spawn(move || {
                let mut streams = Vec::new();
                listener.set_nonblocking(true).unwrap();
                while let Err(std::sync::mpsc::TryRecvError::Empty) = wait.try_recv() {
                    if let Ok((mut stream, _)) = listener.accept() {
                        stream.write_all(sends).unwrap();
                        streams.push(stream);
                    }
                    std::thread::yield_now();
                }
            });
            let agent = agent(false, Duration::from_millis(100));
            let error = download(&agent, &source, &part, &mut |_, _| {}).unwrap_err();
            drop(done);
            format!("{error:#}")
        });
        assert!(text.contains("timeout") || text.contains("timed out"), "{text}");
    }
    assert_eq!(fs::read(&part).unwrap(), b"hello", "what came is kept");
}
