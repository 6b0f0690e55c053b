//! Reads a table as it comes from storage, in batches: neither the file nor its rows are ever in memory as a whole.

use std::collections::HashMap;
use std::io::{self, Read};

use axum::body::Bytes;
use csv::{ByteRecord, StringRecord};
use futures::StreamExt;
use futures::stream::BoxStream;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::table::{self, Column, Fault, Header, Row};
use crate::app::problem::Problem;
use crate::tenancy::storage::{Content, StorageError};

/// Most rows of one file.
pub const MAX_ROWS: u64 = 100_000;
/// Rows that travel together; one statement stores them.
const BATCH: usize = 1000;
/// How much is looked at to find out how cells are separated.
const LOOK: usize = 64 * 1024;
/// Longest line that is read.
const LONGEST_LINE: usize = 256 * 1024;

/// One row, good or not.
pub struct Line {
    /// Where it begins.
    pub number: u64,
    /// As it stands in the file, for the report.
    pub record: StringRecord,
    /// What it means.
    pub row: Result<Row, Vec<Fault>>,
}

/// What comes out, in this order: one header, batches, one end.
pub enum Part {
    /// The first line.
    Header { header: Header, headings: StringRecord },
    /// The next rows.
    Lines(Vec<Line>),
    /// All of them have come. Without it the reading broke off, and what came must not be taken for the whole.
    End,
}

/// Reads a table in a thread of its own, which ends when nobody listens any more.
pub fn read(content: Content) -> mpsc::Receiver<Result<Part, Problem>> {
    let (send, receive) = mpsc::channel(1);
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let source = Source {
            stream: content.stream.fuse().boxed(),
            part: Bytes::new(),
            after_return: false,
            open_line: 0,
            handle,
        };
        if let Err(Stop::Because(problem)) = read_all(source, &send) {
            let _ = send.blocking_send(Err(problem));
        }
    });
    receive
}

/// Why reading ends early.
enum Stop {
    /// Something is wrong, and is to be told.
    Because(Problem),
    /// Nobody listens any more.
    Unheard,
}

impl From<csv::Error> for Stop {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => error.into(),
            kind => Self::Because(Problem::Invalid(format!("The file cannot be read as a table: {kind:?}."))),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            return Self::Because(Problem::Invalid(error.to_string()));
        }
        Self::Because(match error.downcast::<StorageError>() {
            Ok(error) => Problem::Files(error),
            Err(error) => Problem::Internal(format!("reading a table: {error}")),
        })
    }
}

fn read_all(mut source: Source, send: &mpsc::Sender<Result<Part, Problem>>) -> Result<(), Stop> {
    let mut head = Vec::new();
    source.by_ref().take(LOOK as u64).read_to_end(&mut head)?;
    let head = without_mark(&head).map_err(|what| Stop::Because(Problem::Invalid(what)))?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator(head))
        .has_headers(false)
        .flexible(true)
        // The last line may have no end; an empty one more does not matter.
        .from_reader(head.chain(source).chain(&b"\n"[..]));
    let mut record = ByteRecord::new();
    if !reader.read_byte_record(&mut record)? {
        return Err(Stop::Because(Problem::Invalid("The file is empty.".into())));
    }
    let headings = text_of(&record).map_err(|column| {
        Stop::Because(Problem::Invalid(format!("Heading {column} is not in UTF-8. Save the file as “CSV UTF-8”.")))
    })?;
    let header = Header::read(&headings).map_err(|what| Stop::Because(Problem::Invalid(what)))?;
    let tell = |part| send.blocking_send(Ok(part)).map_err(|_| Stop::Unheard);
    tell(Part::Header { header: header.clone(), headings })?;
    let mut seen = Seen::default();
    let (mut rows, mut lines) = (0, Vec::with_capacity(BATCH));
    while reader.read_byte_record(&mut record)? {
        rows += 1;
        if rows > MAX_ROWS {
            let what = format!("The file has more than {MAX_ROWS} rows. Split it.");
            return Err(Stop::Because(Problem::Invalid(what)));
        }
        let number = first_line(&reader, &record);
        lines.push(line(&header, number, &record, &mut seen));
        if lines.len() == BATCH {
            tell(Part::Lines(std::mem::replace(&mut lines, Vec::with_capacity(BATCH))))?;
        }
    }
    tell(Part::Lines(lines))?;
    tell(Part::End)
}

/// The line on which a row begins, as an editor counts them. Counted back from its end: what the reader takes for a row's
/// beginning may be an empty line before it.
fn first_line(reader: &csv::Reader<impl Read>, record: &ByteRecord) -> u64 {
    let lines = record.as_slice().split(|byte| *byte == b'\n').count();
    reader.position().line().saturating_sub(lines as u64)
}

fn line(header: &Header, number: u64, record: &ByteRecord, seen: &mut Seen) -> Line {
    match text_of(record) {
        Ok(record) => {
            let row = table::row(header, number, &record).and_then(|row| seen.first(row).map_err(|fault| vec![fault]));
            Line { number, record, row }
        }
        Err(column) => {
            let what = format!("Cell {column} is not in UTF-8. Save the file as “CSV UTF-8”.");
            let cells: Vec<_> = record.iter().map(String::from_utf8_lossy).collect();
            let record = cells.iter().map(AsRef::as_ref).collect::<Vec<&str>>();
            Line { number, record: StringRecord::from(record), row: Err(vec![Fault::of_row(number, what)]) }
        }
    }
}

/// `Err` is the number of the cell that is no text.
fn text_of(record: &ByteRecord) -> Result<StringRecord, usize> {
    StringRecord::from_byte_record(record.clone()).map_err(|error| error.utf8_error().field() + 1)
}

/// Which assets the file has named already.
#[derive(Default)]
struct Seen {
    /// By a hash of what identifies an asset, so that a hundred thousand long names stay small.
    lines: HashMap<[u8; 16], u64>,
}

impl Seen {
    fn first(&mut self, row: Row) -> Result<Row, Fault> {
        let (column, keys) = match (row.id, row.value(Column::Tag)) {
            (Some(id), _) => (Column::Id, ["id", &id.to_string(), ""].map(str::to_owned)),
            (None, Some(tag)) => (Column::Tag, ["tag", tag, ""].map(str::to_owned)),
            (None, None) => {
                let text = |column| row.value(column).unwrap_or_default().to_owned();
                (Column::Name, ["name".to_owned(), text(Column::Name), text(Column::Location)])
            }
        };
        let mut digest = Sha256::new();
        for key in keys {
            digest.update((key.len() as u64).to_be_bytes());
            digest.update(key);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&digest.finalize()[..16]);
        match self.lines.insert(key, row.line) {
            None => Ok(row),
            Some(first) => {
                self.lines.insert(key, first);
                let what = match column {
                    Column::Name => "has the same name and location. Give each a tag, or remove one.",
                    _ => "has the same. Remove one of them.",
                };
                Err(Fault::at(row.line, column, format!("Line {first} {what}")))
            }
        }
    }
}

/// The mark that Excel puts in front of UTF-8 goes; the one of UTF-16 is refused with what to do.
fn without_mark(head: &[u8]) -> Result<&[u8], String> {
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) || head.contains(&0) {
        return Err("The file is not a CSV file in UTF-8. Save it as “CSV UTF-8” and send it again.".into());
    }
    Ok(head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head))
}

/// The one that the first line has most of, outside quotes.
fn separator(head: &[u8]) -> u8 {
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for byte in head {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            byte if !quoted => {
                for (separator, count) in &mut counts {
                    *count += usize::from(separator == byte);
                }
            }
            _ => {}
        }
    }
    // Of equals the first one: `max_by_key` would take the last.
    counts.iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(separator, _)| *separator)
}

/// What comes from storage, for a reader that waits. Lives in a thread of its own. Line ends of every kind become the one
/// that lines are counted by.
struct Source {
    stream: BoxStream<'static, Result<Bytes, StorageError>>,
    /// What has come and was not read yet.
    part: Bytes,
    /// The last byte was a carriage return.
    after_return: bool,
    /// Bytes since the last end of a line.
    open_line: usize,
    handle: Handle,
}

impl Source {
    fn with_plain_ends(&mut self, part: Bytes) -> Bytes {
        if !self.after_return && !part.contains(&b'\r') {
            return part;
        }
        let mut plain = Vec::with_capacity(part.len());
        for byte in part {
            if !(byte == b'\n' && self.after_return) {
                plain.push(if byte == b'\r' { b'\n' } else { byte });
            }
            self.after_return = byte == b'\r';
        }
        plain.into()
    }
}

impl Source {
    /// A reader keeps a place for every cell of a row, so that a row without an end takes many times its bytes.
    fn check_lines(&mut self) -> io::Result<()> {
        for line in self.part.split_inclusive(|byte| *byte == b'\n') {
            self.open_line += line.len();
            if self.open_line > LONGEST_LINE {
                let what = format!("A line is longer than {} KiB. Is this a CSV file?", LONGEST_LINE >> 10);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            if line.ends_with(b"\n") {
                self.open_line = 0;
            }
        }
        Ok(())
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(Ok(part)) => {
                    self.part = self.with_plain_ends(part);
                    self.check_lines()?;
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let length = into.len().min(self.part.len());
        into[..length].copy_from_slice(&self.part.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(parts: Vec<Vec<u8>>) -> Result<Vec<Line>, Problem> {
        let parts: Vec<_> = parts.into_iter().map(|part| Ok(Bytes::from(part))).collect();
        let mut parts = read(Content { bytes: 0, stream: futures::stream::iter(parts).boxed() });
        let mut found = Vec::new();
        while let Some(part) = parts.recv().await {
            if let Part::Lines(lines) = part? {
                found.extend(lines);
            }
        }
        Ok(found)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_row_without_an_end_is_refused_and_long_rows_with_one_are_not() {
        let refused = lines(vec![b"Name\n".to_vec(), vec![b','; LONGEST_LINE / 2], vec![b','; LONGEST_LINE]]).await;
        assert!(matches!(&refused, Err(Problem::Invalid(what)) if what.contains("longer than 256 KiB")));
        let note = "a".repeat(LONGEST_LINE / 2);
        let taken = lines(vec![format!("Name,Notes\nPump,{note}\nValve,{note}\nMotor,{note}\n").into_bytes()]).await;
        assert_eq!(taken.map(|lines| lines.len()).unwrap_or_default(), 3);
    }

    #[tokio::test]
    async fn separators_marks_quotes_and_line_ends_of_every_kind_are_read() {
        let rows = [
            "Name,Location\r\nPump,\"Hall 3, east\"\r\n",
            "\u{feff}Name;Location\nPump;Hall 3, east\n",
            "Name\tLocation\rPump\tHall 3, east\r",
            "\"Name\";\"Location; or place\";Location\nPump;x;Hall 3, east",
        ];
        for text in rows {
            // Byte by byte: nothing depends on where a part ends.
            let found = lines(text.bytes().map(|byte| vec![byte]).collect()).await.unwrap();
            assert_eq!(found.len(), 1, "{text:?}");
            let row = found[0].row.as_ref().unwrap();
            assert_eq!((row.value(Column::Name), row.value(Column::Location)), (Some("Pump"), Some("Hall 3, east")));
        }
    }

    #[tokio::test]
    async fn a_quoted_line_break_belongs_to_its_row_and_lines_are_counted_as_an_editor_does() {
        let text = "Name,Notes\nPump,\"one\ntwo\nthree\"\n\n,empty\nFan,\"it says \"\"no\"\"\"";
        for end in ["\r\n", "\r", "\n"] {
            let found = lines(vec![text.replace('\n', end).into()]).await.unwrap();
            assert_eq!(found.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 6, 7], "{end:?}");
        }
        let found = lines(vec![text.into()]).await.unwrap();
        assert_eq!(found[0].row.as_ref().unwrap().value(Column::Notes), Some("one\ntwo\nthree"));
        assert_eq!(found[1].row.as_ref().unwrap_err()[0].line, 6);
        assert_eq!(found[2].row.as_ref().unwrap().value(Column::Notes), Some("it says \"no\""));
    }

    #[tokio::test]
    async fn what_stands_twice_is_refused_the_second_time() {
        let text = "Tag,Name,Location\n7,Pump,\n,Fan,Roof\n7,Other,\n,Fan,Roof\n,Fan,Cellar\n";
        let found = lines(vec![text.into()]).await.unwrap();
        let faults: Vec<_> = found.iter().filter_map(|line| line.row.as_ref().err()).map(|f| f[0].clone()).collect();
        assert_eq!(faults.len(), 2);
        assert_eq!((faults[0].line, faults[0].column.as_str()), (4, "Tag"));
        assert!(faults[0].what.starts_with("Line 2 "), "{}", faults[0].what);
        assert_eq!((faults[1].line, faults[1].column.as_str()), (5, "Name"));
    }

    #[tokio::test]
    async fn files_that_are_no_tables_are_refused_as_a_whole() {
        let rows: [(&[u8], &str); 5] = [
            (b"", "empty"),
            (b"\xff\xfeN\0a\0m\0e\0", "CSV UTF-8"),
            (b"PK\x03\x04\0\0", "CSV UTF-8"),
            (b"Pump;Hall 3\n", "“Name”"),
            (b"Na\xefme;x\n", "UTF-8"),
        ];
        for (text, expected) in rows {
            match lines(vec![text.to_vec()]).await {
                Err(Problem::Invalid(what)) => assert!(what.contains(expected), "{what}"),
                other => panic!("{text:?}: {:?}", other.map(|lines| lines.len())),
            }
        }
        // One broken cell is one broken row.
        let found = lines(vec![b"Name\nPump\nK\xf6ln\nFan\n".to_vec()]).await.unwrap();
        assert!(found[0].row.is_ok() && found[2].row.is_ok());
        assert!(found[1].row.as_ref().unwrap_err()[0].what.contains("UTF-8"));
    }
}
