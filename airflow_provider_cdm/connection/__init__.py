"""The connection ``huaweicloud_cdm``: its fields, its form, and the settings that it holds."""

__all__ = ["fields", "reader"]
