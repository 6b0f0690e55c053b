//! One file per slice, `<directory>/<slice>.json`: for anywhere but a cluster.
//!
//! inotify says when to look; what is looked at is always every file, and again every 30 seconds, because events may be
//! lost (a directory that is replaced, a queue that runs over).

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use serde::de::IgnoredAny;
use tokio::sync::mpsc;

use super::{Change, Content, Health};

const RESCAN: Duration = Duration::from_secs(30);
/// While the directory cannot be read or watched.
const RETRY: Duration = Duration::from_secs(1);
/// While a file looks half-written, or is missing that was there.
const GLANCE: Duration = Duration::from_millis(50);
/// After this time a file is what it looks like.
const SETTLED: Duration = Duration::from_millis(500);

pub(super) fn changes(path: PathBuf, names: Vec<String>, health: Health) -> impl Stream<Item = Change> + Send + use<> {
    let (sender, events) = mpsc::channel(1);
    let directory = Directory {
        path,
        health,
        files: names.into_iter().map(|name| (name, File::default())).collect(),
        pending: VecDeque::new(),
        watcher: None,
        sender,
        events,
        pause: Duration::ZERO,
    };
    stream::unfold(directory, |mut directory| async { Some((directory.next().await, directory)) })
}

struct Directory {
    path: PathBuf,
    health: Health,
    files: BTreeMap<String, File>,
    pending: VecDeque<Change>,
    watcher: Option<RecommendedWatcher>,
    sender: mpsc::Sender<()>,
    events: mpsc::Receiver<()>,
    /// How long to wait for an event before looking again.
    pause: Duration,
}

#[derive(Default)]
struct File {
    /// What was yielded last; `None`: nothing yet.
    last: Option<Content>,
    /// Since when it looks unfinished.
    doubtful: Option<Instant>,
}

/// What to do about a file that was looked at.
#[derive(Debug, PartialEq)]
enum Look {
    Same,
    Doubtful,
    New,
}

impl Directory {
    async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.pending.pop_front() {
                self.health.seen(&change.slice);
                return change;
            }
            // Closed is impossible, the sender is ours; a time-out is the next look.
            let _ = tokio::time::timeout(self.pause, self.events.recv()).await;
            self.watch();
            self.scan().await;
        }
    }

    /// Watches before it scans, so that nothing falls between the two.
    fn watch(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        let sender = self.sender.clone();
        let watcher = notify::recommended_watcher(move |event| {
            if is_news(&event) {
                // A full channel has an event waiting already, which is enough.
                let _ = sender.try_send(());
            }
        });
        self.watcher = watcher
            .and_then(|mut watcher| watcher.watch(&self.path, RecursiveMode::NonRecursive).map(|()| watcher))
            .ok();
    }

    async fn scan(&mut self) {
        self.pause = if self.watcher.is_some() { RESCAN } else { RETRY };
        // A directory that is not there says nothing about the slices: unreadable is not absent.
        if let Err(error) = tokio::fs::read_dir(&self.path).await {
            self.watcher = None;
            self.pause = RETRY;
            let reason = format!("reading {}: {error}", self.path.display());
            tracing::warn!(reason, "slices cannot be read, trying again");
            return self.files.keys().for_each(|name| self.health.failing(name, reason.clone()));
        }
        for (name, file) in &mut self.files {
            let content = match tokio::fs::read(self.path.join(format!("{name}.json"))).await {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    self.pause = self.pause.min(RETRY);
                    self.health.failing(name, format!("reading {name}.json: {error}"));
                    continue;
                }
            };
            self.health.working(name);
            match file.look(content.as_deref(), Instant::now()) {
                Look::Same => {}
                Look::Doubtful => self.pause = self.pause.min(GLANCE),
                Look::New => {
                    file.last = Some(content.clone());
                    self.pending.push_back(Change { slice: name.clone(), content });
                }
            }
        }
    }
}

/// Our own reading makes events too; answering them with a look would never end.
fn is_news(event: &notify::Result<Event>) -> bool {
    !event.as_ref().is_ok_and(|event| event.kind.is_access())
}

impl File {
    /// A file that is no JSON may still be being written, and one that vanished being replaced: both get time to settle.
    fn look(&mut self, content: Option<&[u8]>, now: Instant) -> Look {
        if self.last.as_ref().is_some_and(|last| last.as_deref() == content) {
            self.doubtful = None;
            return Look::Same;
        }
        let finished = match content {
            Some(bytes) => serde_json::from_slice::<IgnoredAny>(bytes).is_ok(),
            None => self.last.is_none(),
        };
        let since = *self.doubtful.get_or_insert(now);
        if !finished && now.saturating_duration_since(since) < SETTLED {
            return Look::Doubtful;
        }
        self.doubtful = None;
        Look::New
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn a_half_written_or_vanished_file_gets_time_to_settle() {
        let start = Instant::now();
        let mut file = File { last: Some(Some(b"{}".to_vec())), doubtful: None };
        assert_eq!(file.look(Some(b"{\"a\":"), start), Look::Doubtful);
        assert_eq!(file.look(None, start), Look::Doubtful);
        assert_eq!(file.look(Some(b"{}"), start), Look::Same);
        assert_eq!(file.look(None, start + SETTLED), Look::Doubtful, "it was as before in between");
        assert_eq!(file.look(Some(b"{\"a\":1}"), start), Look::New);
        assert_eq!(file.look(Some(b""), start), Look::Doubtful);
        assert_eq!(file.look(Some(b""), start + SETTLED), Look::New, "it stays like that, so readers may judge it");
    }

    #[tokio::test]
    async fn looking_at_the_files_is_no_reason_to_look_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.json"), "1").unwrap();
        let (sender, mut events) = mpsc::channel(64);
        let mut watcher = notify::recommended_watcher(move |event| drop(sender.try_send(event))).unwrap();
        watcher.watch(directory.path(), RecursiveMode::NonRecursive).unwrap();
        std::fs::read(directory.path().join("a.json")).unwrap();
        std::fs::read_dir(directory.path()).unwrap();
        std::fs::rename(directory.path().join("a.json"), directory.path().join("b.json")).unwrap();
        let mut next = async || tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap();
        let mut ignored = 0;
        let event = loop {
            match next().await {
                event if is_news(&event) => break event.unwrap(),
                _ => ignored += 1,
            }
        };
        assert!(ignored > 0, "reading makes events");
        assert!(matches!(event.kind, notify::EventKind::Modify(_)), "{event:?} is the first news");
    }

    #[tokio::test]
    async fn a_directory_yields_each_name_once_and_then_what_changes() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let temporary = directory.path().join(".temporary");
            std::fs::write(&temporary, text).unwrap();
            std::fs::rename(temporary, directory.path().join(name)).unwrap();
        };
        put("a.json", "1");
        put("unknown.json", "1");
        let health = Health::new(2);
        let names = vec!["a".to_owned(), "b".to_owned()];
        let mut stream = std::pin::pin!(changes(directory.path().to_owned(), names, health.clone()));
        let mut next = async || tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap();
        let change = |slice: &str, text: Option<&str>| Change {
            slice: slice.to_owned(),
            content: text.map(|text| text.as_bytes().to_vec()),
        };

        assert_eq!([next().await, next().await], [change("a", Some("1")), change("b", None)]);
        assert_eq!(health.ready(), Ok(()));
        put("b.json", "2");
        assert_eq!(next().await, change("b", Some("2")));
        std::fs::write(directory.path().join("b.json"), "[2,").unwrap();
        std::fs::write(directory.path().join("b.json"), "[2,3]").unwrap();
        assert_eq!(next().await, change("b", Some("[2,3]")));
        std::fs::remove_file(directory.path().join("a.json")).unwrap();
        assert_eq!(next().await, change("a", None));
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_yields_nothing_and_shows_in_health() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("later");
        let health = Health::new(1);
        let mut stream = std::pin::pin!(changes(path.clone(), vec!["a".to_owned()], health.clone()));
        tokio::select! {
            change = stream.next() => panic!("{change:?} of a directory that is not there"),
            () = async { while health.broken_for().is_none() { tokio::task::yield_now().await } } => {}
        }
        std::fs::create_dir(&path).unwrap();
        let change = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap();
        assert_eq!(change.content, None);
        assert_eq!(health.broken_for(), None);
    }
}
