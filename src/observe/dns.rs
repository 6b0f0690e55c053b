//! What name servers say: TXT records, asked anew each time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

/// One question to one name server.
const TIMEOUT: Duration = Duration::from_secs(3);
/// With all its retries, and what a CNAME leads to.
const PATIENCE: Duration = Duration::from_secs(12);

/// What name servers answered. That they did not answer says nothing about the record (rule R12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The values of the records, each with its strings put together.
    Values(Vec<String>),
    /// There is no such record.
    Absent,
    /// They did not answer, or refused to; why.
    Silent(String),
}

/// Asks name servers.
pub struct Dns {
    resolver: TokioResolver,
}

impl Dns {
    /// Asks `servers`; none: those of the system.
    ///
    /// # Errors
    /// The system's settings cannot be read.
    pub fn new(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().context("reading the system's name servers")?
        } else {
            let servers = servers.iter().map(|server| {
                let on_port = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
                // A server of a split view may not know the name while another does.
                NameServerConfig::new(server.ip(), false, connections)
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // What was true a while ago is no proof; and negative answers are what is waited for to end.
        options.cache_size = 0;
        options.timeout = TIMEOUT;
        Ok(Self { resolver: builder.build().context("reading the name servers")? })
    }

    /// The TXT records of a name.
    pub async fn txt(&self, name: &str) -> Answer {
        let asked = self.resolver.txt_lookup(format!("{name}."));
        match tokio::time::timeout(PATIENCE, asked).await {
            Err(_) => Answer::Silent(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(Err(error)) if error.is_no_records_found() => Answer::Absent,
            Ok(Err(error)) => Answer::Silent(why(&error)),
            Ok(Ok(found)) => {
                let text = |data: &RData| match data {
                    RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
                    _ => None,
                };
                let values: Vec<_> = found.answers().iter().filter_map(|record| text(&record.data)).collect();
                if values.is_empty() { Answer::Absent } else { Answer::Values(values) }
            }
        }
    }
}

/// The same each time for the same failure: it ends up in a status, which must not change with every attempt.
fn why(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no answer in time".into(),
        NetError::Io(error) => error.kind().to_string(),
        other => other.to_string(),
    }
}
