# The store: one bucket for all apps, each under its own prefix.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# Names are spelled out instead of read from resources, so that a plan shows every policy in full before anything exists.
locals {
  account_id     = data.aws_caller_identity.current.account_id
  iam_arn        = "arn:${data.aws_partition.current.partition}:iam::${local.account_id}"
  bucket_arn     = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket}"
  log_bucket_arn = "${local.bucket_arn}-logs"
  prefixes       = { for app, each in var.apps : app => coalesce(each.prefix, app) }
}

resource "aws_s3_bucket" "store" {
  # checkov:skip=CKV_AWS_144: a copy in a second region doubles the bill; add replication if you need one
  # checkov:skip=CKV_AWS_145: SSE-S3 is the default; create_kms_key chooses KMS
  # checkov:skip=CKV2_AWS_62: nothing listens to events; sidecar's own metrics show when a restore point is missing
  bucket = var.bucket

  # Together with `prevent_destroy`: neither a `destroy` nor a renamed bucket may delete the restore points.
  force_destroy = false

  # Object Lock is only possible in a bucket that was created with it.
  object_lock_enabled = var.object_lock != null

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "store" {
  bucket                  = aws_s3_bucket.store.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    object_ownership = "BucketOwnerEnforced" # disables ACLs: only policies decide
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    bucket_key_enabled = var.create_kms_key

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.create_kms_key ? "aws:kms" : "AES256"
      kms_master_key_id = one(aws_kms_key.store[*].arn)
    }
  }
}

resource "aws_s3_bucket_versioning" "store" {
  bucket = aws_s3_bucket.store.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_policy" "store" {
  bucket = aws_s3_bucket.store.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      jsondecode(templatefile("${path.module}/policies/bucket.json.tftpl", { bucket_arn = local.bucket_arn })).Statement,
      # sidecar publishes with `If-None-Match: *`. This enforces it for stolen credentials as well. Lease and parts are
      # exempt: lease.json is replaced all the time, and parts of an upload cannot have conditions.
      # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
      jsondecode(templatefile("${path.module}/policies/restore_points.json.tftpl", { bucket_arn = local.bucket_arn })).Statement,
    )
  })

  # The public access block must exist first, so that it applies to the policy.
  depends_on = [aws_s3_bucket_public_access_block.store]
}

resource "aws_s3_bucket_object_lock_configuration" "store" {
  count  = var.object_lock == null ? 0 : 1
  bucket = aws_s3_bucket.store.id

  rule {
    default_retention {
      mode = var.object_lock.mode
      days = var.object_lock.days
    }
  }

  depends_on = [aws_s3_bucket_versioning.store]
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket = aws_s3_bucket.store.id

  # Current objects expire only by tag. sidecar tags a restore point when a newer one supersedes it, so the newest one has no
  # tag and is kept, however long the app sleeps; no rule matches the tag `held`. A segment of a stream has its tag from the
  # start.
  dynamic "rule" {
    for_each = var.retention_days
    iterator = tier

    content {
      id     = "expire-${tier.key}"
      status = "Enabled"

      filter {
        tag {
          key   = "sidecar-tier"
          value = tier.key
        }
      }

      expiration {
        days = tier.value
      }
    }
  }

  # Expired, deleted and overwritten objects can be recovered for a while. This touches no current object.
  rule {
    id     = "forget-noncurrent"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }
  }

  # An interrupted upload leaves parts that cost money but are not listed. No filter: there are no tags before completion.
  rule {
    id     = "abort-incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  # A delete marker without any versions left holds no data.
  rule {
    id     = "forget-delete-markers"
    status = "Enabled"

    filter {}

    expiration {
      expired_object_delete_marker = true
    }
  }

  # The lease is renewed every 40 s, which makes two thousand useless versions a day.
  dynamic "rule" {
    for_each = local.prefixes
    iterator = app

    content {
      id     = "forget-leases-of-${app.key}"
      status = "Enabled"

      filter {
        prefix = "${app.value}/lease.json"
      }

      noncurrent_version_expiration {
        noncurrent_days = 1
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.store]
}

resource "aws_kms_key" "store" {
  count                   = var.create_kms_key ? 1 : 0
  description             = "Restore points in ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30 # the maximum: without the key, every restore point is unreadable

  policy = templatefile("${path.module}/policies/key.json.tftpl", {
    partition  = data.aws_partition.current.partition
    account_id = local.account_id
  })

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "store" {
  count         = var.create_kms_key ? 1 : 0
  name          = "alias/${var.bucket}"
  target_key_id = aws_kms_key.store[0].key_id
}
