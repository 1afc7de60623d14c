output "fly_env" {
  description = "The `[env]` lines for each app's fly.toml: `terraform output -json fly_env | jq -r '.\"my-app\"'`."
  value = {
    for app, prefix in local.prefixes : app => <<-EOT
      [env]
        AWS_REGION = "${var.region}"
        AWS_ROLE_ARN = "${local.writer_role_arns[app]}"
        SIDECAR_STORE = "s3://${var.bucket}/${prefix}"
    EOT
  }
}

output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.store.id
}

output "stores" {
  description = "The store of each app, for `SIDECAR_STORE`."
  value       = { for app, prefix in local.prefixes : app => "s3://${var.bucket}/${prefix}" }
}

output "writer_role_arns" {
  description = "The ARN of each app's writer role, for `AWS_ROLE_ARN`."
  value       = local.writer_role_arns
}

output "fly_oidc_provider_arn" {
  description = "ARN of the identity provider of the fly.io organization."
  value       = local.fly_provider_arn
}

output "kms_key_arn" {
  description = "ARN of the KMS key that encrypts the restore points; null with SSE-S3."
  value       = one(aws_kms_key.store[*].arn)
}

output "log_bucket" {
  description = "Name of the bucket with access logs; null without them."
  value       = one(aws_s3_bucket.logs[*].id)
}
