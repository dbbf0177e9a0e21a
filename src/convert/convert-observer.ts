/** Told about a conversion as it goes; all of it is optional, and must not throw. */
export interface ConvertObserver {
  /** An image of `layers` layers and `bytes` of stored layers is begun. */
  imageStarted?(event: { readonly name: string; readonly layers: number; readonly bytes: number }): void;
  /** That many more bytes of stored layers have been read. */
  storedBytes?(bytes: number): void;
  layerConverted?(event: { readonly index: number; readonly blobBytes: number }): void;
  layerStored?(event: { readonly index: number; readonly how: "uploaded" | "exists" | "mounted" }): void;
  /** Something that the user should know but that does not stop the conversion. */
  warning?(message: string): void;
}
