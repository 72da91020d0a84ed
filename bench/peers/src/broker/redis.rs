//! Redis Streams: a key for each partition, read by a consumer group.

use super::{Access, Broker, Consumer, PARTITIONS, Producer};
use anyhow::{Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, IntoConnectionInfo, Pipeline, TlsCertificates, Value,
};

/// Entries of each stream in one answer.
const COUNT: usize = 500;
/// Longest wait of the server for entries.
const BLOCK_MS: usize = 200;

pub struct Redis(pub Access);

fn key(partition: u32) -> String {
    format!("events:{partition}")
}

impl Redis {
    async fn connect(&self) -> Result<MultiplexedConnection> {
        let client_tls =
            ClientTlsConfig { client_cert: self.0.pem("client.pem")?, client_key: self.0.pem("client.key")? };
        let root_cert = Some(self.0.pem("ca.pem")?);
        let certificates = TlsCertificates { client_tls: Some(client_tls), root_cert };
        // The library leaves small packets waiting otherwise.
        let tcp = TcpSettings::default().set_nodelay(true);
        let address = self.0.url.as_str().into_connection_info()?.set_tcp_settings(tcp);
        let client = Client::build_with_tls(address, certificates)?;
        // A consumer's command waits at the server, for longer than the library's patience.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

#[async_trait]
impl Broker for Redis {
    async fn prepare(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        for partition in 0..PARTITIONS {
            let mut command = redis::cmd("XGROUP");
            command.arg("CREATE").arg(key(partition)).arg("group").arg("$").arg("MKSTREAM");
            command.exec_async(&mut connection).await?;
        }
        Ok(())
    }

    async fn producer(&self) -> Result<Box<dyn Producer>> {
        Ok(Box::new(RedisProducer(self.connect().await?)))
    }

    async fn consumer(&self, partitions: Vec<u32>) -> Result<Box<dyn Consumer>> {
        let keys = partitions.into_iter().map(key).collect();
        Ok(Box::new(RedisConsumer { connection: self.connect().await?, keys, unconfirmed: Vec::new() }))
    }
}

struct RedisProducer(MultiplexedConnection);

#[async_trait]
impl Producer for RedisProducer {
    async fn send(&mut self, partition: u32, batch: Vec<Bytes>) -> Result<()> {
        let key = key(partition);
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for event in &batch {
            pipeline.cmd("XADD").arg(&key).arg("*").arg("event").arg(&event[..]).ignore();
        }
        Ok(pipeline.exec_async(&mut self.0).await?)
    }
}

struct RedisConsumer {
    connection: MultiplexedConnection,
    keys: Vec<String>,
    /// Keys, each with ids of entries.
    unconfirmed: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
}

impl RedisConsumer {
    /// Takes the events out of one stream's part of the answer.
    fn take(&mut self, stream: Value, events: &mut Vec<Bytes>) -> Result<()> {
        let (key, entries) = pair(stream)?;
        let Value::Array(entries) = entries else { bail!("a stream without entries") };
        let mut ids = Vec::with_capacity(entries.len());
        for entry in entries {
            let (id, fields) = pair(entry)?;
            let (_, event) = pair(fields)?;
            ids.push(text(id)?);
            events.push(text(event)?.into());
        }
        self.unconfirmed.push((text(key)?, ids));
        Ok(())
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(&mut self, events: &mut Vec<Bytes>) -> Result<()> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg("group").arg(&self.keys[0]);
        command.arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS");
        self.keys.iter().for_each(|key| {
            command.arg(key);
        });
        self.keys.iter().for_each(|_| {
            command.arg(">");
        });
        match command.query_async(&mut self.connection).await? {
            Value::Array(streams) => streams.into_iter().try_for_each(|stream| self.take(stream, events)),
            Value::Nil => Ok(()),
            other => bail!("XREADGROUP answered {other:?}"),
        }
    }

    async fn confirm(&mut self) -> Result<()> {
        if self.unconfirmed.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(self.unconfirmed.len());
        for (key, ids) in self.unconfirmed.drain(..) {
            pipeline.cmd("XACK").arg(key).arg("group").arg(ids).ignore();
        }
        Ok(pipeline.exec_async(&mut self.connection).await?)
    }
}

fn pair(value: Value) -> Result<(Value, Value)> {
    let Value::Array(values) = value else { bail!("expected a pair, got {value:?}") };
    let [first, second] = <[Value; 2]>::try_from(values).map_err(|other| anyhow::anyhow!("{other:?}"))?;
    Ok((first, second))
}

fn text(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(text) => Ok(text),
        other => bail!("expected a text, got {other:?}"),
    }
}
