"""What every gRPC server of a durable service needs: idempotency, validation, reflection, ids."""
