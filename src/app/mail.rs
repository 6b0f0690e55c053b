//! Mail: to a server, into a directory, or not at all.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use serde::{Deserialize, Serialize};

use lettre::{Address, AsyncFileTransport, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

/// Longest wait for the mail server to take a mail.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where mail goes and what it comes from.
#[derive(Debug, Clone, Default)]
pub struct MailSettings {
    /// `smtp://user:password@host:port`; see [`Mailer::new`].
    pub smtp_url: Option<String>,
    /// Writes each mail into a file here instead, for demos and tests.
    pub directory: Option<PathBuf>,
    /// The sender's address.
    pub from: Option<String>,
    /// How hosts are reached from outside: `https://{host}`.
    pub public_url: String,
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum MailSettingsError {
    /// No sender.
    #[error("reading the mail settings: mail needs a sender's address")]
    NoSender,
    /// The sender is no address.
    #[error("reading the mail settings: the sender `{0}` is no address")]
    Sender(String),
    /// Both a server and a directory.
    #[error("reading the mail settings: mail goes to a server or into a directory, not both")]
    Both,
    /// The address of the server cannot be read. It may hold a password, so it is not repeated.
    #[error("reading the mail settings: the address of the mail server is not one")]
    Server(#[source] lettre::transport::smtp::Error),
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The app has no way to send mail.
    #[error("sending mail: none is configured")]
    NotConfigured,
    /// The recipient's address is none.
    #[error("writing a mail: the recipient's address is not one")]
    Recipient(#[source] lettre::address::AddressError),
    /// The mail cannot be written.
    #[error("writing a mail")]
    Write(#[source] lettre::error::Error),
    /// The server did not take it.
    #[error("sending mail: the server did not take it")]
    Refused(#[source] lettre::transport::smtp::Error),
    /// The directory did not take it.
    #[error("sending mail: the directory did not take it")]
    NotWritten(#[source] lettre::transport::file::Error),
    /// The server does not answer.
    #[error("sending mail: no answer in time")]
    TooSlow,
}

/// A mail to one person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Letter {
    /// The sender's shown name: the tenant's.
    pub from: String,
    /// Shown name and address of the recipient.
    pub to: (String, String),
    pub subject: String,
    pub text: String,
}

#[derive(Clone)]
enum Way {
    Server(AsyncSmtpTransport<Tokio1Executor>),
    Directory(AsyncFileTransport<Tokio1Executor>),
}

/// Sends mail. Clones share the connections.
#[derive(Clone)]
pub struct Mailer {
    way: Option<(Way, Address)>,
    public_url: String,
}

impl Default for Mailer {
    /// Sends nothing.
    fn default() -> Self {
        Self { way: None, public_url: "https://{host}".into() }
    }
}

impl Mailer {
    /// The scheme of the server's address says how it is spoken to: `smtps://` over TLS, `smtp://…?tls=required` with
    /// STARTTLS or not at all, `smtp://…?tls=opportunistic` with STARTTLS where the server offers it, `smtp://` in clear.
    ///
    /// # Errors
    /// A setting makes no sense.
    pub fn new(settings: &MailSettings) -> Result<Self, MailSettingsError> {
        let way = match (&settings.smtp_url, &settings.directory) {
            (Some(_), Some(_)) => return Err(MailSettingsError::Both),
            (None, None) => None,
            (Some(url), None) => Some(Way::Server(
                AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
                    .map_err(MailSettingsError::Server)?
                    .timeout(Some(PATIENCE))
                    .build(),
            )),
            (None, Some(directory)) => Some(Way::Directory(AsyncFileTransport::new(directory))),
        };
        let way = way.map(|way| Ok((way, sender(settings.from.as_deref())?))).transpose()?;
        Ok(Self { way, public_url: settings.public_url.clone() })
    }

    /// Whether there is a way to send mail.
    pub fn is_configured(&self) -> bool {
        self.way.is_some()
    }

    /// The address of a page. `host` is the tenant's canonical one and never what a request named: a link in a mail leads
    /// where we say.
    pub fn link(&self, host: &str, path: &str, token: &str) -> String {
        format!("{}{path}?token={token}", self.public_url.replace("{host}", host).trim_end_matches('/'))
    }

    /// Sends a mail, and returns when it was taken.
    ///
    /// # Errors
    /// It was not.
    pub async fn send(&self, letter: &Letter) -> Result<(), MailError> {
        let (way, from) = self.way.as_ref().ok_or(MailError::NotConfigured)?;
        let message = compose(letter, from.clone())?;
        let sending = async {
            match way {
                Way::Server(server) => server.send(message).await.map(|_| ()).map_err(MailError::Refused),
                Way::Directory(directory) => directory.send(message).await.map(|_| ()).map_err(MailError::NotWritten),
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.map_err(|_| MailError::TooSlow)?
    }
}

fn sender(from: Option<&str>) -> Result<Address, MailSettingsError> {
    let from = from.filter(|from| !from.is_empty()).ok_or(MailSettingsError::NoSender)?;
    from.parse().map_err(|_| MailSettingsError::Sender(from.to_owned()))
}

fn compose(letter: &Letter, from: Address) -> Result<Message, MailError> {
    let (name, address) = &letter.to;
    let to: Address = address.parse().map_err(MailError::Recipient)?;
    Message::builder()
        .from(Mailbox::new(Some(one_line(&letter.from)), from))
        .to(Mailbox::new(Some(one_line(name)), to))
        .subject(one_line(&letter.subject))
        // Nobody shall get an answer of somebody's holiday.
        .raw_header(raw("Auto-Submitted", "auto-generated"))
        .header(ContentType::TEXT_PLAIN)
        .body(letter.text.clone())
        .map_err(MailError::Write)
}

fn raw(name: &'static str, value: &'static str) -> lettre::message::header::HeaderValue {
    use lettre::message::header::{HeaderName, HeaderValue};
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// What stands in a header has no line break, wherever it came from.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(letter: &Letter) -> String {
        let message = compose(letter, "noreply@maintenance.example".parse().unwrap()).unwrap();
        String::from_utf8(message.formatted()).unwrap()
    }

    fn letter(name: &str, subject: &str) -> Letter {
        Letter {
            from: name.into(),
            to: (name.into(), "jo@acme.example".into()),
            subject: subject.into(),
            text: "Hello\n.\nBcc: not@a.header\n".into(),
        }
    }

    #[test]
    fn no_name_and_no_subject_becomes_a_header() {
        let evil = "Jo\r\nBcc: evil@evil.example\r\n\r\nBody";
        let text = formatted(&letter(evil, evil));
        let (headers, _) = text.split_once("\r\n\r\n").unwrap();
        for line in headers.split("\r\n") {
            assert!(!line.to_lowercase().starts_with("bcc"), "{headers}");
        }
        assert_eq!(headers.split("\r\n").filter(|line| line.starts_with("To:")).count(), 1, "{headers}");
        for name in ["Jo \" <x@y.example>, z", "Müller & Söhne GmbH", "a,b;c", &"ü".repeat(255)] {
            let text = formatted(&letter(name, name));
            assert!(text.contains("<jo@acme.example>"), "{text}");
            let to = text.lines().filter(|line| line.starts_with("To:") && line.contains("x@y.example"));
            assert_eq!(to.count(), 0, "{text}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        let mut letter = letter("Jo", "x");
        letter.to.1 = "jo@acme.example\r\nBcc: evil@evil.example".into();
        assert!(matches!(compose(&letter, "a@b.example".parse().unwrap()), Err(MailError::Recipient(_))));
    }

    // The connections' upkeep is a task.
    #[tokio::test]
    async fn settings_that_contradict_each_other_are_refused() {
        let settings = |smtp: Option<&str>, directory: Option<&str>, from: Option<&str>| MailSettings {
            smtp_url: smtp.map(Into::into),
            directory: directory.map(Into::into),
            from: from.map(Into::into),
            public_url: "https://{host}".into(),
        };
        assert!(!Mailer::new(&settings(None, None, None)).unwrap().is_configured());
        let from = Some("a@b.example");
        for url in ["smtp://localhost:1025", "smtps://user:pass@mail.example", "smtp://mail.example:587?tls=required"] {
            assert!(Mailer::new(&settings(Some(url), None, from)).is_ok_and(|mailer| mailer.is_configured()), "{url}");
        }
        let refused = |settings| Mailer::new(&settings).err().unwrap().to_string();
        assert!(refused(settings(None, Some("/tmp"), None)).contains("sender"));
        assert!(refused(settings(None, Some("/tmp"), Some("nobody"))).contains("`nobody`"));
        assert!(refused(settings(Some("smtp://a"), Some("/tmp"), from)).contains("not both"));
        assert!(!refused(settings(Some("http://user:secret@a"), None, from)).contains("secret"));
    }

    #[test]
    fn a_link_leads_to_the_host_it_is_for() {
        let mailer = Mailer { public_url: "http://{host}:8080/".into(), ..Mailer::default() };
        assert_eq!(
            mailer.link("acme.example", "/reset-password", "x"),
            "http://acme.example:8080/reset-password?token=x"
        );
    }
}
