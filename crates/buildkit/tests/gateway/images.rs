//! Configs and digests of images.

use std::collections::BTreeMap;

use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::pb;
use lapstrake_testkit::buildkit::{control, of_build, shelf, solve};
use lapstrake_testkit::{Mode, Test};
use tonic::Code;

use crate::place::{BUILD, with};

pub(crate) const TESTS: &[Test] = &[("configs_of_images", &[Mode::Root, Mode::Oneid], configs_of_images)];

fn configs_of_images(mode: Mode) {
    with(mode, shelf("FROM scratch\nLABEL a=b\n", Vec::new()), |mut place| async move {
        // All of the place, so that its directory stays.
        let place = &mut place;
        let attrs = BTreeMap::from([("name".to_owned(), "local/app:1".to_owned())]);
        let exporters = vec![api::Exporter { r#type: "image".to_owned(), attrs }];
        let request =
            api::SolveRequest { session: "session-b".to_owned(), exporters, ..solve("other", &["image"]) };
        let built = control(&place.channel).solve(request).await.unwrap().into_inner().exporter_response;
        let ask = |name: &str| frontend::ResolveImageConfigRequest {
            r#ref: name.to_owned(),
            ..frontend::ResolveImageConfigRequest::default()
        };
        let found = place.bridge.resolve_image_config(of_build(BUILD, ask("local/app:1"))).await.unwrap();
        let found = found.into_inner();
        assert_eq!(found.r#ref, "docker.io/local/app:1");
        assert!(String::from_utf8_lossy(&found.config).contains(r#""a":"b""#), "{found:?}");
        assert!(built.values().any(|value| *value == found.digest), "{built:?}, {found:?}");
        let source = |identifier: &str| frontend::ResolveSourceMetaRequest {
            source: Some(pb::SourceOp { identifier: identifier.to_owned(), ..pb::SourceOp::default() }),
            ..frontend::ResolveSourceMetaRequest::default()
        };
        let told =
            place.bridge.resolve_source_meta(of_build(BUILD, source("docker-image://local/app:1"))).await;
        let told = told.unwrap().into_inner().image.unwrap();
        assert_eq!((told.digest, told.config), (found.digest, found.config));
        for (wrong, code) in [("A/B", Code::InvalidArgument), ("", Code::InvalidArgument)] {
            let error = place.bridge.resolve_image_config(of_build(BUILD, ask(wrong))).await.unwrap_err();
            assert_eq!(error.code(), code, "{error:?}");
        }
        let nothing = frontend::ResolveSourceMetaRequest::default();
        let error = place.bridge.resolve_source_meta(of_build(BUILD, nothing)).await.unwrap_err();
        assert_eq!(error.message(), "source is required");
        let other =
            frontend::ResolveImageConfigRequest { resolve_mode: "x".to_owned(), ..ask("local/app:1") };
        let error = place.bridge.resolve_image_config(of_build(BUILD, other)).await.unwrap_err();
        assert!(error.message().ends_with("invalid resolvemode: x"), "{error:?}");
    });
}
