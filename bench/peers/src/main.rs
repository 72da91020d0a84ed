//! The load of nistru's benchmarks, put on brokers that a user could install instead. `--help` says how to use it;
//! `../run` starts the brokers.

mod broker;
mod event;
mod flow;
mod run;

use anyhow::Result;
use broker::{Access, Broker};
use clap::{Args, Parser, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Puts load on a broker that was started for it, and writes what came of it to standard output as JSON.
///
/// Every producer has a connection and one request in flight, which ends when the broker has acknowledged all of its
/// events. Latencies count from the moment at which a request was to be sent.
#[derive(Parser, Debug)]
#[command(version)]
struct Options {
    /// What kind of broker it is
    broker: Kind,
    /// Where it listens, as its client library takes it
    #[arg(long)]
    url: String,
    /// Directory of ca.pem, client.pem and client.key
    #[arg(long, value_name = "DIR")]
    pki: PathBuf,
    #[command(flatten)]
    load: Load,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Kind {
    Nats,
    Postgresql,
    Rabbitmq,
    Redis,
}

/// The load itself.
#[derive(Args, Debug, Clone)]
pub struct Load {
    /// Producer connections, each with one request in flight
    #[arg(long, value_name = "N")]
    pub producers: usize,
    /// Events in a request
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// Consumers, which share the partitions and confirm what they have read
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub consumers: usize,
    /// Events a second, over all producers [default: as many as the broker takes]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Without a rate, producers wait while consumers are more than N events behind
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub backlog: u64,
    /// Size of an event in bytes
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub bytes: usize,
    /// Seconds of load before the measurement
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    pub warm_up: Duration,
    /// Seconds of measurement
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "6")]
    pub duration: Duration,
    /// Seconds of load after the measurement, for who looks at the broker's memory
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    pub tail: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 =
        text.parse().map_err(|_| "expected a number of seconds, such as 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn connect(kind: Kind, access: Access) -> Box<dyn Broker> {
    match kind {
        Kind::Nats => Box::new(broker::nats::Nats(access)),
        Kind::Postgresql => Box::new(broker::postgresql::Postgresql(access)),
        Kind::Rabbitmq => Box::new(broker::rabbitmq::RabbitMq(access)),
        Kind::Redis => Box::new(broker::redis::Redis(access)),
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    // Client libraries disagree about which provider they bring; they all use the one that is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let broker = connect(options.broker, Access { url: options.url, pki: options.pki });
    let report = run::run(broker.as_ref(), &options.load).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
