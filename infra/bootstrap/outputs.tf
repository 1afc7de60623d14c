output "backend_tf" {
  description = "A backend for this stack's own state: `terraform output -raw backend_tf > backend.tf`, then `terraform init -migrate-state`."
  value       = <<-EOT
    terraform {
      backend "s3" {
        bucket       = "${aws_s3_bucket.state.id}"
        key          = "sidecar/bootstrap.tfstate"
        region       = "${var.region}"
        encrypt      = true
        use_lockfile = true
      }
    }
  EOT
}

output "init_infra" {
  description = "How to initialize `infra` with its state in the bucket."
  value       = "terraform init -backend-config=bucket=${aws_s3_bucket.state.id} -backend-config=region=${var.region}"
}

output "github_variables" {
  description = "Variables of the repository (Settings, Secrets and variables, Actions, Variables) that the workflows read."
  value = {
    AWS_REGION         = var.region
    AWS_PLAN_ROLE_ARN  = aws_iam_role.plan.arn
    AWS_APPLY_ROLE_ARN = aws_iam_role.apply.arn
    TF_STATE_BUCKET    = aws_s3_bucket.state.id
  }
}

output "writer_boundary_arn" {
  description = "Permissions boundary for `permissions_boundary_arn` of `infra`."
  value       = local.boundary_arn
}
