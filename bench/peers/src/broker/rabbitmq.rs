//! RabbitMQ over AMQP 0-9-1: a quorum queue for each partition, publisher confirms, cumulative acknowledgements.

use super::{Access, Broker, Consumer, PARTITIONS, Producer, READ_MAX};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{ReadyChunks, SelectAll};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

/// Events that a consumer may hold unconfirmed, of each queue.
const PREFETCH: u16 = 2000;
/// The delivery mode of messages that go to disk.
const PERSISTENT: u8 = 2;

pub struct RabbitMq(pub Access);

fn queue(partition: u32) -> String {
    format!("events.{partition}")
}

impl RabbitMq {
    async fn connect(&self) -> Result<(Connection, Channel)> {
        let identity =
            OwnedIdentity::PKCS8 { pem: self.0.pem("client.pem")?, key: self.0.pem("client.key")? };
        let authority = String::from_utf8(self.0.pem("ca.pem")?)?;
        let tls = OwnedTLSConfig { identity: Some(identity), cert_chain: Some(authority) };
        let (properties, runtime) = (ConnectionProperties::default(), lapin::runtime::default_runtime()?);
        let connection = Connection::connect_with_config(&self.0.url, properties, tls, runtime).await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn prepare(&self) -> Result<()> {
        let (_connection, channel) = self.connect().await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        for partition in 0..PARTITIONS {
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare(queue(partition).into(), options, arguments.clone()).await?;
        }
        Ok(())
    }

    async fn producer(&self) -> Result<Box<dyn Producer>> {
        let (connection, channel) = self.connect().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Box::new(RabbitMqProducer { _connection: connection, channel }))
    }

    async fn consumer(&self, partitions: Vec<u32>) -> Result<Box<dyn Consumer>> {
        let (connection, channel) = self.connect().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let mut all = SelectAll::new();
        for partition in partitions {
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let tag = partition.to_string();
            all.push(channel.basic_consume(queue(partition).into(), tag.into(), options, arguments).await?);
        }
        let deliveries = all.ready_chunks(READ_MAX);
        Ok(Box::new(RabbitMqConsumer { _connection: connection, channel, deliveries, last: 0 }))
    }
}

/// The connection ends with it.
struct RabbitMqProducer {
    _connection: Connection,
    channel: Channel,
}

#[async_trait]
impl Producer for RabbitMqProducer {
    async fn send(&mut self, partition: u32, batch: Vec<Bytes>) -> Result<()> {
        let queue = queue(partition);
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let mut confirms = Vec::with_capacity(batch.len());
        for event in &batch {
            let options = BasicPublishOptions::default();
            let publish = self.channel.basic_publish(
                "".into(),
                queue.as_str().into(),
                options,
                event,
                properties.clone(),
            );
            confirms.push(publish.await?);
        }
        for confirm in confirms {
            ensure!(confirm.await?.is_ack(), "the broker did not take an event");
        }
        Ok(())
    }
}

/// The connection ends with it.
struct RabbitMqConsumer {
    _connection: Connection,
    channel: Channel,
    deliveries: ReadyChunks<SelectAll<lapin::Consumer>>,
    /// The highest tag received. Tags count over the channel, so one acknowledgement covers all queues.
    last: u64,
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn receive(&mut self, events: &mut Vec<Bytes>) -> Result<()> {
        for delivery in self.deliveries.next().await.context("the stream of deliveries ended")? {
            let delivery = delivery?;
            self.last = self.last.max(delivery.delivery_tag);
            events.push(delivery.data.into());
        }
        Ok(())
    }

    async fn confirm(&mut self) -> Result<()> {
        Ok(self.channel.basic_ack(self.last, BasicAckOptions { multiple: true }).await?)
    }
}
