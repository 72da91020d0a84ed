//! NATS JetStream: a stream for each partition, read by pull consumers that acknowledge cumulatively.

use super::{Access, Broker, Consumer, PARTITIONS, Producer, READ_MAX};
use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::{Config as PullConfig, MessagesError};
use async_nats::jetstream::stream::{Config as StreamConfig, StorageType};
use async_nats::jetstream::{self, Context, Message};
use async_nats::{ConnectOptions, Error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, ReadyChunks, SelectAll};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the server keeps a request for messages; the library asks again.
const EXPIRES: Duration = Duration::from_secs(5);
/// More than the load ever leaves unconfirmed.
const UNCONFIRMED_MAX: i64 = 50_000;

pub struct Nats(pub Access);

fn subject(partition: u32) -> String {
    format!("events.{partition}")
}

fn stream(partition: u32) -> String {
    format!("EVENTS{partition}")
}

impl Nats {
    async fn connect(&self) -> Result<Context> {
        let options = ConnectOptions::new().require_tls(true).tls_client_config(self.0.tls()?);
        Ok(jetstream::new(options.connect(&self.0.url).await?))
    }
}

#[async_trait]
impl Broker for Nats {
    async fn prepare(&self) -> Result<()> {
        let context = self.connect().await?;
        for partition in 0..PARTITIONS {
            let (name, subjects) = (stream(partition), vec![subject(partition)]);
            let config = StreamConfig { name, subjects, storage: StorageType::File, ..Default::default() };
            context.create_stream(config).await?;
        }
        Ok(())
    }

    async fn producer(&self) -> Result<Box<dyn Producer>> {
        Ok(Box::new(NatsProducer(self.connect().await?)))
    }

    async fn consumer(&self, partitions: Vec<u32>) -> Result<Box<dyn Consumer>> {
        let context = self.connect().await?;
        let mut all = SelectAll::new();
        for partition in partitions {
            all.push(messages(&context, partition).await.map_err(anyhow::Error::from_boxed)?);
        }
        Ok(Box::new(NatsConsumer { messages: all.ready_chunks(READ_MAX), last: BTreeMap::new() }))
    }
}

type Messages = BoxStream<'static, (u32, Result<Message, MessagesError>)>;

async fn messages(context: &Context, partition: u32) -> Result<Messages, Error> {
    let config = PullConfig {
        durable_name: Some("group".to_owned()),
        ack_policy: AckPolicy::All,
        max_ack_pending: UNCONFIRMED_MAX,
        ..Default::default()
    };
    let consumer = context.get_stream(stream(partition)).await?.create_consumer(config).await?;
    let messages = consumer.stream().max_messages_per_batch(READ_MAX).expires(EXPIRES).messages().await?;
    Ok(messages.map(move |message| (partition, message)).boxed())
}

struct NatsProducer(Context);

#[async_trait]
impl Producer for NatsProducer {
    async fn send(&mut self, partition: u32, batch: Vec<Bytes>) -> Result<()> {
        let subject = subject(partition);
        let mut acknowledgements = Vec::with_capacity(batch.len());
        for event in batch {
            acknowledgements.push(self.0.publish(subject.clone(), event).await?);
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await?;
        }
        Ok(())
    }
}

struct NatsConsumer {
    messages: ReadyChunks<SelectAll<Messages>>,
    /// The last message of each partition: its acknowledgement covers those before it.
    last: BTreeMap<u32, Message>,
}

#[async_trait]
impl Consumer for NatsConsumer {
    async fn receive(&mut self, events: &mut Vec<Bytes>) -> Result<()> {
        for (partition, message) in self.messages.next().await.context("the stream of messages ended")? {
            let message = message?;
            events.push(message.payload.clone());
            self.last.insert(partition, message);
        }
        Ok(())
    }

    async fn confirm(&mut self) -> Result<()> {
        while let Some((_, message)) = self.last.pop_first() {
            message.ack().await.map_err(anyhow::Error::from_boxed)?;
        }
        Ok(())
    }
}
