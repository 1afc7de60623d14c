# Optional: access logs, in a bucket of their own.

resource "aws_s3_bucket" "logs" {
  # checkov:skip=CKV_AWS_144: access logs need no second region
  # checkov:skip=CKV_AWS_145: S3 delivers access logs only to buckets with SSE-S3
  # checkov:skip=CKV2_AWS_62: nothing listens to events
  # checkov:skip=CKV_AWS_21: logs are written once and expire; versions would only keep them longer than requested
  count         = var.access_log_days == null ? 0 : 1
  bucket        = "${var.bucket}-logs"
  force_destroy = false
}

resource "aws_s3_bucket_public_access_block" "logs" {
  count                   = length(aws_s3_bucket.logs)
  bucket                  = aws_s3_bucket.logs[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "logs" {
  count  = length(aws_s3_bucket.logs)
  bucket = aws_s3_bucket.logs[0].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  count  = length(aws_s3_bucket.logs)
  bucket = aws_s3_bucket.logs[0].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  count  = length(aws_s3_bucket.logs)
  bucket = aws_s3_bucket.logs[0].id

  rule {
    id     = "expire-logs"
    status = "Enabled"

    filter {}

    expiration {
      days = var.access_log_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_policy" "logs" {
  count  = length(aws_s3_bucket.logs)
  bucket = aws_s3_bucket.logs[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      jsondecode(templatefile("${path.module}/policies/bucket.json.tftpl", { bucket_arn = local.log_bucket_arn })).Statement,
      jsondecode(templatefile("${path.module}/policies/log_delivery.json.tftpl", {
        log_bucket_arn = local.log_bucket_arn
        bucket_arn     = local.bucket_arn
        account_id     = local.account_id
      })).Statement,
    )
  })

  depends_on = [aws_s3_bucket_public_access_block.logs]
}

resource "aws_s3_bucket_logging" "store" {
  count         = length(aws_s3_bucket.logs)
  bucket        = aws_s3_bucket.store.id
  target_bucket = aws_s3_bucket.logs[0].id
  target_prefix = "s3/"

  depends_on = [aws_s3_bucket_policy.logs]
}
