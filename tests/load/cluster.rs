//! How does the load generator get a cluster of its own?

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use penstock_proto::MAX_MESSAGE_BYTES;
use penstock_proto::v1;
use penstock_proto::v1::penstock_client::PenstockClient;
use tonic::transport::{Channel, Endpoint};

/// A quickstart cluster; it is stopped when dropped.
pub(crate) struct TestCluster {
    penstock: PathBuf,
    dir: PathBuf,
    config: PathBuf,
}

/// A client of the controller.
pub(crate) type Client = PenstockClient<Channel>;

impl TestCluster {
    /// Starts one node in `dir`.
    pub(crate) fn start(penstock: &Path, dir: &Path) -> Result<Self> {
        let penstock = std::fs::canonicalize(penstock)
            .with_context(|| format!("no binary at {}; build it first", penstock.display()))?;
        let output = Command::new(&penstock)
            .args(["quickstart", "--detach", "--cpus", "16", "--dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "quickstart failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let lines = String::from_utf8(output.stdout)?;
        let config = lines
            .lines()
            .find_map(|line| line.strip_prefix("export PENSTOCK_CONFIG="))
            .map(|path| PathBuf::from(path.trim_matches(['"', '\''])))
            .context("quickstart printed no PENSTOCK_CONFIG")?;
        Ok(Self { penstock, dir: dir.to_owned(), config })
    }

    /// The controller's socket.
    pub(crate) fn socket(&self) -> Result<PathBuf> {
        Ok(self.controller_key("socket")?.into())
    }

    /// A text of the cluster file's section about the controller.
    pub(crate) fn controller_key(&self, key: &str) -> Result<String> {
        let text = std::fs::read_to_string(&self.config)?;
        let table: toml::Table = text.parse()?;
        let value = table.get("controller").and_then(|c| c.get(key)).and_then(|s| s.as_str());
        Ok(value.with_context(|| format!("the cluster file names no {key}"))?.to_owned())
    }

    /// Stops everything; [`Self::start_missing`] starts it again.
    pub(crate) fn stop(&self) -> Result<()> {
        self.quickstart("--stop").map(drop)
    }

    /// A connection of its own.
    pub(crate) async fn client(&self) -> Result<Client> {
        let path = self.socket()?;
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?))
            }
        });
        let channel = Endpoint::from_static("http://local").connect_with_connector(connect).await?;
        Ok(PenstockClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// A command of Slurm's, ready to run against this cluster.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.penstock);
        command.arg(name).env("PENSTOCK_CONFIG", &self.config).current_dir(&self.dir);
        command
    }

    /// Where the cluster keeps its state.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Pid of the controller.
    pub(crate) fn controller_pid(&self) -> Result<u32> {
        let output = self.quickstart("--status")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .find(|line| line.contains("controller"))
            .and_then(|line| line.split_whitespace().find_map(|word| word.parse().ok()))
            .with_context(|| format!("no controller in the status: {text}"))
    }

    /// Starts what is missing.
    pub(crate) fn start_missing(&self) -> Result<()> {
        let output = Command::new(&self.penstock)
            .args(["quickstart", "--detach", "--cpus", "16", "--dir"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The binary and the controller's file, to start it by hand.
    pub(crate) fn controller(&self) -> Command {
        let mut command = Command::new(&self.penstock);
        command.arg("controller").arg("--config").arg(&self.config);
        command
    }

    fn quickstart(&self, flag: &str) -> Result<Output> {
        let output = Command::new(&self.penstock)
            .args(["quickstart", flag, "--dir"])
            .arg(&self.dir)
            .output()?;
        if !output.status.success() {
            bail!("quickstart {flag}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output)
    }

    /// Waits until the controller answers; returns how long it took.
    pub(crate) async fn wait_for_answer(&self, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Ok(mut client) = self.client().await
                && client.ping(v1::PingRequest {}).await.is_ok()
            {
                return Ok(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("the controller did not answer within {} s", patience.as_secs())
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if let Err(error) = self.quickstart("--stop") {
            println!("{error}");
        }
    }
}
