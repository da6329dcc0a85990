#!/usr/bin/env bash
# One Kubernetes Job for one Snakemake job: submit.sh CORES MEMORY_MB GPUS MINUTES JOBSCRIPT; prints its name.
set -eu
: "${MERLIN_IMAGE:?name a container image}" "${MERLIN_CLAIM:?name a volume claim}" "${MERLIN_MOUNT:?where it is mounted}"
gpu=""
[ "$3" = 0 ] || gpu=", \"nvidia.com/gpu\": \"$3\""
kubectl create -o name -f - <<JOB
{"apiVersion": "batch/v1", "kind": "Job",
 "metadata": {"generateName": "merlin-"},
 "spec": {"backoffLimit": 0, "activeDeadlineSeconds": $(($4 * 60)), "template": {"spec": {
   "restartPolicy": "Never",
   "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "$MERLIN_CLAIM"}}],
   "containers": [{"name": "snakemake", "image": "$MERLIN_IMAGE", "workingDir": "$PWD",
     "command": ["bash", "$5"],
     "volumeMounts": [{"name": "work", "mountPath": "$MERLIN_MOUNT"}],
     "resources": {"requests": {"cpu": "$1", "memory": "$2M"},
                   "limits": {"memory": "$2M"$gpu}}}]}}}}
JOB
