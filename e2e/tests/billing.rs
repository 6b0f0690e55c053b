//! What a customer has paid for is served within seconds, and what not is not.

use std::time::Instant;

use hmac::{Hmac, Mac};
use maintenance_os_e2e::{OPERATOR, World, promise, within};
use serde_json::json;
use sha2::Sha256;

/// Sends an event as Stripe does; the answer's status.
async fn send(world: &World, secret: &str, body: &str) -> u16 {
    let time = jiff::Timestamp::now().as_second();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("keys have any length");
    mac.update(format!("{time}.{body}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let address = world.address(OPERATOR, "maintenance-os-billing").await;
    let sent = reqwest::Client::new()
        .post(format!("http://{address}/stripe/webhook"))
        .header("Stripe-Signature", format!("t={time},v1={signature}"))
        .body(body.to_owned())
        .send()
        .await;
    sent.expect("the webhook answers").status().as_u16()
}

#[tokio::test]
async fn a_subscription_that_is_not_paid_any_more_closes_the_app_within_seconds_and_one_that_is_opens_it() {
    promise(async |world| {
        let name = World::name("billed");
        let uuid = world.ready(&name, json!({})).await;
        let secret = world.secret(OPERATOR, "maintenance-os-stripe").await.expect("the demo makes it")["webhook"].clone();
        let now = jiff::Timestamp::now().as_second();
        let event = |number: i64, kind: &str, status: &str| {
            let object = json!({
                "id": format!("sub_{uuid}"), "object": "subscription", "status": status, "customer": "cus_1",
                "cancel_at_period_end": false, "metadata": { "tenant": uuid },
                "items": { "data": [{ "current_period_start": now, "current_period_end": now + 30 * 86_400 }] },
            });
            json!({ "id": format!("evt_{uuid}_{number}"), "object": "event", "type": format!("customer.subscription.{kind}"),
                    "created": now + number, "data": { "object": object } })
            .to_string()
        };
        assert_eq!(send(world, "whsec_another", &event(0, "created", "active")).await, 400, "somebody else's signature");
        assert_eq!(send(world, &secret, &event(0, "created", "active")).await, 200);
        within(10, "the Tenant says that it is active", async || {
            let condition = world.condition(&name, "SubscriptionActive").await.ok_or("no condition")?;
            let is_told = condition.status == "True" && condition.message.contains("active");
            if is_told { Ok(()) } else { Err(format!("{} {}", condition.status, condition.message)) }
        })
        .await;

        let admin = world.admin(&name).await;
        let assets = async |status: u16| {
            within(5, &format!("the assets answer {status}"), async || {
                let page = admin.page(world, "/assets").await;
                if page.status == status { Ok(()) } else { Err(format!("{}: {}", page.status, page.body)) }
            })
            .await;
        };
        assets(200).await;
        let began = Instant::now();
        assert_eq!(send(world, &secret, &event(1, "updated", "unpaid")).await, 200);
        assets(402).await;
        println!("closed {} ms after the event", began.elapsed().as_millis());
        let condition = world.condition(&name, "SubscriptionActive").await.expect("the condition");
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "TrialExpired"), "{}", condition.message);
        // Late and twice: what is newer stands.
        assert_eq!(send(world, &secret, &event(0, "created", "active")).await, 200);
        assets(402).await;
        assert_eq!(send(world, &secret, &event(2, "updated", "active")).await, 200);
        assets(200).await;
    })
    .await;
}
