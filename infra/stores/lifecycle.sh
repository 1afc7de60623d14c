#!/usr/bin/env bash
# Lifecycle rules for a bucket on Tigris or Cloudflare R2, whose rules cannot select objects by tag. They expire segments of
# streams, and on R2 they abort unfinished uploads. They never reach a restore point: `sidecar prune` deletes those.
#
#   lifecycle.sh tigris|r2 BUCKET [PREFIX] [--replace]
#
# PREFIX is that of the store, s3://BUCKET/PREFIX. The AWS CLI takes endpoint and key from AWS_ENDPOINT_URL_S3, AWS_REGION,
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. STREAM_DAYS (35) must be the days of `stream` in sidecar's retention_days.
# This request replaces all rules of a bucket, so a bucket that has rules is left as it is without --replace.
set -euo pipefail

usage() {
  echo "usage: lifecycle.sh tigris|r2 BUCKET [PREFIX] [--replace]" >&2
  exit 2
}

replace=no
words=()
for word in "$@"; do
  case $word in
    --replace) replace=yes ;;
    -*) usage ;;
    *) words+=("$word") ;;
  esac
done
[[ ${#words[@]} -ge 2 && ${#words[@]} -le 3 ]] || usage

store=${words[0]}
bucket=${words[1]}
prefix=${words[2]:-}
prefix=${prefix#/}
prefix=${prefix%/}
prefix=${prefix:+$prefix/}
days=${STREAM_DAYS:-35}

[[ $prefix =~ ^[A-Za-z0-9._/-]*$ ]] || { echo "lifecycle.sh: PREFIX $prefix has characters other than A-Z a-z 0-9 . _ - /" >&2; exit 2; }
[[ $days =~ ^[0-9]+$ && $days -ge 7 ]] || { echo "lifecycle.sh: STREAM_DAYS $days is not a whole number of days, at least 7" >&2; exit 2; }
[[ -n ${AWS_ENDPOINT_URL_S3:-} ]] || { echo "lifecycle.sh: set AWS_ENDPOINT_URL_S3; without it the rules would go to AWS" >&2; exit 2; }

stream='{"ID": "sidecar-stream", "Status": "Enabled", "Filter": {"Prefix": "'$prefix'stream/"}, "Expiration": {"Days": '$days'}}'
uploads='{"ID": "sidecar-uploads", "Status": "Enabled", "Filter": {"Prefix": "'$prefix'"}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}'
case $store in
  tigris) rules=$stream ;; # takes no other actions: https://www.tigrisdata.com/docs/buckets/objects-expiration/
  r2) rules="$stream, $uploads" ;;
  *) usage ;;
esac

present=$(aws s3api get-bucket-lifecycle-configuration --bucket "$bucket" --output json 2>&1) || {
  [[ $present == *NoSuchLifecycleConfiguration* ]] || { echo "$present" >&2; exit 1; }
  present=
}
if [[ -n $present && $replace = no ]]; then
  printf '%s\n' "$present" "lifecycle.sh: bucket $bucket has these rules; --replace puts sidecar's in their place" >&2
  exit 1
fi

# R2 does not know the checksum that the AWS CLI prefers: https://developers.cloudflare.com/r2/examples/aws/aws-cli/
aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --checksum-algorithm CRC32 \
  --lifecycle-configuration "{\"Rules\": [$rules]}"
aws s3api get-bucket-lifecycle-configuration --bucket "$bucket" --output json
