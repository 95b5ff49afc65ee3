#!/bin/sh
# Three simulated cars, each on a pseudo terminal of this container, and the agent that reads them.
set -eu
[ -d /demo/pasts ] || packtwin-sim lives --past 3 --seed 7 -o /demo/pasts
while :; do
    packtwin-sim sim --cars 3 --seed 7 --channel /tmp/can || sleep 1
done &
exec packtwin-edge run --config /demo.toml
