#!/usr/bin/env bash
# Stands where AWS Systems Manager does: connects to a port of an instance by its id. Usage: ssm.sh INSTANCE PORT
address=$(python "$(dirname "$0")/aws_world.py" address "$1" | tr -d '"')
exec 3<>"/dev/tcp/$address/$2"
cat <&3 &
cat >&3
