#!/usr/bin/env bash
# Lifecycle rules for a bucket on Tigris or Cloudflare R2, whose rules select objects by prefix. They expire the restore points
# below expiring/ and segments of streams, and on R2 they abort unfinished uploads. The newest restore point and held ones
# have copies at keys that these rules do not reach.
#
#   lifecycle.sh tigris|r2 BUCKET [PREFIX] [--replace]
#
# PREFIX is that of the store, s3://BUCKET/PREFIX. The AWS CLI takes endpoint and key from AWS_ENDPOINT_URL_S3, AWS_REGION,
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. RECENT_DAYS (1), HOURLY_DAYS (7), DAILY_DAYS (35) and STREAM_DAYS (35) must be
# the days of sidecar's retention_days.
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
recent=${RECENT_DAYS:-1}
hourly=${HOURLY_DAYS:-7}
daily=${DAILY_DAYS:-35}
stream=${STREAM_DAYS:-35}

[[ $prefix =~ ^[A-Za-z0-9._/-]*$ ]] || { echo "lifecycle.sh: PREFIX $prefix has characters other than A-Z a-z 0-9 . _ - /" >&2; exit 2; }
for days in "$recent" "$hourly" "$daily" "$stream"; do
  [[ $days =~ ^[1-9][0-9]*$ ]] || { echo "lifecycle.sh: $days is not a whole number of days" >&2; exit 2; }
done
[[ $recent -le $hourly && $hourly -le $daily && $stream -le $daily && $stream -ge 7 ]] || {
  echo "lifecycle.sh: the days must be RECENT <= HOURLY <= DAILY, and STREAM between 7 and DAILY" >&2
  exit 2
}
[[ -n ${AWS_ENDPOINT_URL_S3:-} ]] || { echo "lifecycle.sh: set AWS_ENDPOINT_URL_S3; without it the rules would go to AWS" >&2; exit 2; }

expire() { # NAME FOLDER DAYS
  printf '{"ID": "sidecar-%s", "Status": "Enabled", "Filter": {"Prefix": "%s%s/"}, "Expiration": {"Days": %s}}' "$1" "$prefix" "$2" "$3"
}

expirations="$(expire recent expiring/recent "$recent"), $(expire hourly expiring/hourly "$hourly"), $(expire daily expiring/daily "$daily"), $(expire stream stream "$stream")"
uploads='{"ID": "sidecar-uploads", "Status": "Enabled", "Filter": {"Prefix": "'$prefix'"}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}'
case $store in
  tigris) rules=$expirations ;; # takes no other actions: https://www.tigrisdata.com/docs/buckets/objects-expiration/
  r2) rules="$expirations, $uploads" ;;
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
