# Settings of every shell and every Ray process on every node; clusters/setup.sh puts this file first in ~/.bashrc.
export PATH="$HOME/retable-venv/bin:$PATH"
export PYTHONPATH="$HOME/retable/platform"        # the code that runs is the checkout that was sent

export RAY_AUTH_MODE=token                        # off by default; the token is ~/.ray/auth_token
export RAY_USAGE_STATS_ENABLED=0
export MLFLOW_DISABLE_TELEMETRY=true

export RAY_worker_niceness=0                      # workers run at nice 15 by default
export RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.2      # each train.report waits for it; 2 s by default

# How soon a node that falls silent is given up, and its tasks with it: docs/cluster.md has what was measured. Much
# tighter values take a busy node for a dead one.
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=5000
export RAY_health_check_failure_threshold=5
export RAY_grpc_client_keepalive_time_ms=10000
export RAY_grpc_client_keepalive_timeout_ms=10000

export RETABLE_CACHE="$HOME/scratch/cache"        # decoded frames and features; scratch is the fastest disk of the node
