//! Dockerfiles as people write them, made up.

use std::fmt::Write as _;

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::parse;
use lapstrake_lower::{BuildInputs, lower};
use lapstrake_oci::Platform;

use crate::mutate::Mutator;
use crate::targets::Fake;

/// Instructions with a number in them.
const LINES: [&str; 20] = [
    "RUN apt-get update && apt-get install -y --no-install-recommends \\\n    pkg-# \\\n    other-# \\\n    && rm -rf /var/lib/apt/lists/*",
    "RUN make -j4 target-#",
    "COPY src-# /app/src-#/",
    "COPY --chown=1000:1000 package-#.json lock-#.json ./",
    "ENV NAME_#=value-# PATH=/opt/#/bin:$PATH",
    "ARG VERSION_#=1.#",
    "WORKDIR /app/#",
    "LABEL org.example.part#=\"part number #\"",
    "EXPOSE 8080",
    "USER app",
    "RUN --mount=type=cache,target=/root/.cache/# cargo build --release -p crate-#",
    "RUN <<EOF\nset -e\necho # > /tmp/#\nEOF",
    "COPY <<EOF /etc/app-#.conf\nport=$NAME_#\nEOF",
    "HEALTHCHECK --interval=30s --timeout=#s CMD curl -f http://localhost/ || exit 1",
    "CMD [\"app\", \"--number\", \"#\"]",
    "ENTRYPOINT [\"/entry-#\"]",
    "VOLUME /data/#",
    "RUN [\"/bin/tool\", \"-n\", \"#\"]",
    "# why step # is there\nRUN echo ${NAME_#:-none} | sed 's/x/y/'",
    "ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.org/f-#.tar.gz /tmp/",
];

/// A Dockerfile of this many instructions in a few stages; the same for the same `seed`.
pub fn generated(seed: u64, instructions: usize) -> String {
    let mut random = Mutator::new(seed);
    let mut text = "# syntax=docker/dockerfile:1\nARG BASE=debian\n".to_owned();
    let mut stage = 0;
    for number in 0..instructions {
        if number % 25 == 0 {
            // Writing to a string does not fail.
            writeln!(text, "\nFROM $BASE AS stage-{stage}").unwrap_or_default();
            if stage > 0 {
                writeln!(text, "COPY --from=stage-{} /out /out", stage - 1).unwrap_or_default();
            }
            stage += 1;
            continue;
        }
        let line = LINES[random.below(LINES.len())].replace('#', &number.to_string());
        // The one comment among them lost its sign.
        let line =
            line.strip_prefix(&format!("{number} why")).map_or(line.clone(), |rest| format!("# why{rest}"));
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Parses and lowers; gives how many steps there are.
pub fn typical(text: &str) -> usize {
    let parsed = parse(&SourceFile::new("Dockerfile", text));
    if parsed.first_error().is_some() {
        return 0;
    }
    let inputs = BuildInputs { build_platform: Platform::new("linux", "amd64", ""), ..BuildInputs::new() };
    lower(&parsed.dockerfile, &inputs, &Fake).map_or(0, |plan| plan.graph.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_builds() {
        for seed in 0..50 {
            let text = generated(seed, 100);
            assert!(typical(&text) > 20, "{text}");
        }
    }
}
