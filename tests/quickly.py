"""How the suite has XLA compile in less time than for users."""

FLAG = "--xla_cpu_use_fusion_emitters=false"
