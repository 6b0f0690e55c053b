//! PostgreSQL's own programs: `pg_dump`, `pg_restore`.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// How much of what a program complains is kept.
const COMPLAINT: usize = 4 << 10;

/// Where they are.
#[derive(Clone, Debug)]
pub struct Programs(pub PathBuf);

impl Programs {
    /// Starts one with nothing of our own environment. It ends when the value goes.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        &self,
        program: &str,
        arguments: &[String],
        environment: Vec<(&'static str, String)>,
        stdin: Stdio,
    ) -> anyhow::Result<Child> {
        let path = self.0.join(program);
        Command::new(&path)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .env("LC_ALL", "C.UTF-8")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", path.display()))
    }

    /// What it says of its version.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn version(&self, program: &str) -> anyhow::Result<String> {
        let started = self.start(program, &["--version".into()], Vec::new(), Stdio::null())?;
        let output = started.wait_with_output().await.with_context(|| format!("asking {program} for its version"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Everything that a program complains; the beginning is kept.
pub async fn complaint(stream: Option<impl AsyncRead + Unpin>) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    if let Some(mut stream) = stream {
        // It is read to its end, because a program whose complaints nobody reads stops.
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            let room = COMPLAINT - kept.len();
            kept.extend_from_slice(&buffer[..read.min(room)]);
        }
    }
    String::from_utf8_lossy(&kept).trim().replace('\n', "; ")
}

/// Its end, which must be a good one.
///
/// # Errors
/// It failed or was killed.
pub async fn ended(program: &str, child: &mut Child, complaint: &str) -> anyhow::Result<()> {
    let status = child.wait().await.with_context(|| format!("waiting for {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status}): {complaint}");
    }
    Ok(())
}
