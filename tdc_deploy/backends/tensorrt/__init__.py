"""TensorRT 8.5 to 11: what builds engines and reads them. Importing it needs neither TensorRT nor a GPU."""
